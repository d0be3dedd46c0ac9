# The project's one image: every service of it, and the link proxies. `python -m services.kv` …
#
# It builds with the legacy builder and with BuildKit, also of old engines: so no `RUN --mount`, no
# `COPY --chmod` or `--link`, no here-documents, and no `# syntax=` line, which would pull a frontend.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS packages
# Where pip looks. Unset they are absent; a machine without network sets both (a folder of wheels).
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /build
COPY requirements.lock wheelhouse* ./
# pip stays outside: the image needs what it installs, and its bytecode, but never installs again.
RUN python3 -m venv --without-pip /opt/faultline \
 && python3 -m pip --python /opt/faultline/bin/python install --no-cache-dir --compile --quiet \
    --disable-pip-version-check --no-warn-script-location \
    --require-hashes --only-binary :all: -r requirements.lock

FROM ${PYTHON_IMAGE} AS service
# A volume takes over the owner of the directory that it is mounted on.
RUN mkdir -p /data && chown 10001:10001 /data
COPY --from=packages /opt/faultline /opt/faultline
WORKDIR /app
COPY services services
COPY labs labs
# Bytecode belongs in the image: its file system is read-only later, and without it each start of a
# node would compile for half a second. Not checked against the source, which can't change here.
RUN /opt/faultline/bin/python -m compileall -q --invalidation-mode unchecked-hash /app/services /app/labs
ENV PATH=/opt/faultline/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
CMD ["python", "-m", "services.kv"]

# For FAULTS=packets alone: what holds a network namespace has nftables, and changes its rules.
FROM service AS packets
USER 0:0
RUN command -v nft || (apt-get update && apt-get install -y --no-install-recommends nftables \
 && rm -rf /var/lib/apt/lists/*)
USER 10001:10001

FROM service
