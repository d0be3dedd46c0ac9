# A JRE, and Kafka's Maven artefacts with the scripts that the official image has.
members="$HERE/../labs/harness/testbed/members"
kafka=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$members/kafka_install.py")
libs=$(ls -d "${XDG_CACHE_HOME:-$HOME/.cache}/faultline/kafka-$kafka/libs" 2>/dev/null) ||
  fail "Apache Kafka $kafka is not here; type: make kafka"
HOOKS+=(
  # Java's set-up fails without a place for its manual, which is left out.
  --essential-hook='mkdir -p "$1"/usr/share/man/man1'
  --customize-hook='mkdir -p "$1"/opt/kafka/libs "$1"/opt/kafka/bin "$1"/opt/kafka/config'
  --customize-hook="cp $libs/*.jar \"\$1\"/opt/kafka/libs/"
  --customize-hook="cp $HERE/kafka/kafka-*.sh \"\$1\"/opt/kafka/bin/"
)
