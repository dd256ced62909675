# shellcheck shell=bash
# What the steps of .ci and the scripts in bin share: where they run, where they keep what they fetched, how they get a tool.
# Sourced, never run.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Kept between runs; safe to delete at any time.
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/gotrue-sidecar
mkdir -p "$CACHE"

say() { printf '%s\n' "== $*"; }

die() {
	printf '%s\n' "${0#./}: $*" >&2
	exit 1
}

# need COMMAND PACKAGE...: each command is there, or comes from the Debian package named after it.
need() {
	local missing=() as_root=(env)
	while [ $# -gt 0 ]; do
		command -v "$1" >/dev/null || missing+=("$2")
		shift 2
	done
	[ ${#missing[@]} -eq 0 ] && return
	[ "$(id -u)" = 0 ] || as_root=(sudo)
	if ! command -v "${as_root[0]}" >/dev/null || ! command -v apt-get >/dev/null; then
		die "missing: ${missing[*]} (Debian packages; run this as root or with sudo there, or install them yourself)"
	fi
	say "installing ${missing[*]}"
	local install=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive
		apt-get install -qq -y --no-install-recommends "${missing[@]}")
	# A machine's package lists may be old or absent; only then are they fetched.
	"${install[@]}" >/dev/null 2>&1 || { "${as_root[@]}" apt-get update -qq && "${install[@]}" >/dev/null; } ||
		die "apt-get could not install: ${missing[*]}"
}

# A port on which nobody listens.
free_port() {
	local port
	while port=$((RANDOM % 20000 + 20000)); do
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
	done
	echo "$port"
}

# The Debian archive this machine itself uses.
debian_mirror() {
	# shellcheck disable=SC2016 # the variable is apt's
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1 |
		grep . || die "no Debian archive in this machine's apt sources"
}

# debian_tool SUITE PACKAGE VERSION: prints the folder into which that package of another Debian suite was
# unpacked. Nothing is installed; for programs that need nothing beside them.
debian_tool() {
	local suite=$1 package=$2 version=$3
	local home=$CACHE/debian/$suite/$package-$version
	if [ ! -d "$home" ]; then
		say "unpacking $package $version of Debian $suite" >&2
		local work=$CACHE/debian/$suite/apt
		rm -rf "$work" && mkdir -p "$work"/{lists,cache/archives}/partial
		printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
			"$(debian_mirror)" "$suite" >"$work/sources.list"
		local apt=(apt-get -qq -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache"
			-o Dir::State::status=/dev/null -o "Dir::Etc::sourcelist=$work/sources.list"
			-o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root)
		"${apt[@]}" update >&2 || die "cannot read Debian $suite"
		(cd "$work" && "${apt[@]}" download "$package=$version" >&2) ||
			die "Debian $suite has no $package $version"
		dpkg-deb -x "$work/$package"_*.deb "$work/root"
		mkdir -p "$(dirname "$home")"
		mv "$work/root" "$home"
		rm -rf "$work"
	fi
	printf '%s\n' "$home"
}

# python_env FILE: prints a virtual environment with what that file pins.
python_env() {
	local pins=$1 home
	home=$CACHE/python/$(sha256sum "$pins" | cut -c1-16)
	if [ ! -e "$home/ready" ]; then
		need python3 python3
		say "installing $pins" >&2
		rm -rf "$home"
		python3 -m venv "$home" >&2 || die "python3 cannot make a virtual environment (Debian: python3-venv)"
		"$home/bin/pip" install --quiet --disable-pip-version-check --requirement "$pins" >&2 ||
			die "pip could not install $pins"
		touch "$home/ready"
	fi
	printf '%s\n' "$home"
}
