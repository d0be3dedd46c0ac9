# A venv in /usr/local gives the paths of the official image, and pip may install there. The bytecode
# stays: without it each start of a node would compile for half a second.
HOOKS+=(
  --customize-hook='chroot "$1" python3 -m venv /usr/local'
  --customize-hook='rm -rf "$1"/usr/share/python-wheels'
)
