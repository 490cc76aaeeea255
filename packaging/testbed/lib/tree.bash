# The Debian trees that containers and virtual machines boot from, kept in the
# cache. Sourced by testbed.
# shellcheck shell=bash disable=SC2034,SC2154

readonly PRUNE_DAYS=14
readonly DISK_SIZE=4G # of a virtual machine; a sparse file

# The release of Debian, by its code name: bookworm is 12, with systemd 252,
# and trixie is 13, with systemd 257.
suite=${RTASK_TESTBED_SUITE:-bookworm}

# tree_hash KIND names the tree that the recipe makes.
tree_hash() {
	{
		echo "$suite $DISK_SIZE" "$(dpkg --print-architecture)"
		echo "$1"
		declare -f tree_build tree_image
		cat "$here"/tree/* "$here"/guest/*
	} | sha256sum | cut -c 1-16
}

# tree_packages KIND lists the packages of the tree.
tree_packages() {
	sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/tree/packages" "$here/tree/packages-$1" | sort
}

tree=''          # the tree's path, once tree_find was called
tree_building='' # what is being built now

# tree_find KIND finds the tree for containers or virtual machines in the
# cache, or builds it. The tree of a virtual machine is a disk, too: $tree.img.
tree_find() {
	local kind=$1 trees hash
	trees=$(cache_folder)/trees
	hash=$(tree_hash "$kind")
	tree=$trees/$hash
	if [[ ! -d $tree || $kind == vm && ! -e $tree.img ]]; then
		mkdir -p "$trees"
		chmod 700 "$trees" # there are set-uid programs in a tree
		exec 7>"$trees/.lock"
		run_helper flock 7 # one builds, the others wait for it
		[[ -d $tree ]] || tree_build "$kind"
		[[ $kind != vm || -e $tree.img ]] || tree_image
		exec 7>&-
	fi
	touch "$tree.used"
}

# tree_build KIND builds $tree.
tree_build() {
	local options sources log=$tree.log
	tree_prune
	say "building a Debian $suite tree for a $(tree_kind_name "$1"); this takes a minute or two, once"
	options=$(apt_options)
	sources=$(apt_sources)
	mapfile -t options <<<"$options"
	tree_building=${tree%/*}/building-${tree##*/}
	# mmdebstrap is written for the system's own programs.
	PATH=/usr/sbin:/usr/bin:/sbin:/bin run_helper mmdebstrap --mode=root --format=directory --variant=minbase \
		--include="$(tree_packages "$1" | paste --serial --delimiters=,)" \
		"${options[@]/#/--aptopt=}" \
		--extract-hook="$here/tree/extracted" \
		--customize-hook="$here/tree/customize" \
		"$suite" "$tree_building" ${sources:+"$sources"} \
		</dev/null >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		die "cannot build the tree; all of it is in $log"
	}
	mv "$tree_building" "$tree"
	tree_building=''
}

# tree_image makes a disk of $tree.
tree_image() {
	tree_building=${tree%/*}/building-${tree##*/}.img
	run_helper mke2fs -q -t ext4 -L testbed -E lazy_itable_init=0,lazy_journal_init=0 \
		-d "$tree" "$tree_building" "$DISK_SIZE" >/dev/null
	mv "$tree_building" "$tree.img"
	tree_building=''
}

tree_kind_name() {
	case $1 in
	container) echo container ;;
	vm) echo virtual machine ;;
	esac
}

# tree_prune removes what other recipes made and nobody uses, and what an
# interrupted build left.
tree_prune() {
	local used other
	rm -rf --one-file-system "${tree%/*}"/building-*
	for used in "${tree%/*}"/*.used; do
		[[ -e $used ]] || continue
		other=${used%.used}
		if [[ $other != "$tree" && $(find "$used" -mtime "+$PRUNE_DAYS") ]]; then
			rm -rf --one-file-system "$other" "$other".{img,kvm,log} "$used"
		fi
	done
}

# apt_sources prints where to get the suite from: the mirrors that this
# machine's apt uses for Debian, whichever release it runs. Nothing means
# Debian's own, which mmdebstrap knows.
apt_sources() {
	if [[ ${RTASK_TESTBED_MIRROR-} ]]; then
		echo "deb $RTASK_TESTBED_MIRROR $suite main"
		return
	fi
	local codename
	# shellcheck source=/dev/null
	codename=$(source /etc/os-release && echo "${VERSION_CODENAME-}")
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
		awk -v host="${codename:-none}" -v suite="$suite" '
			$3 == "main" && ($4 == "Debian" || $4 ~ /^\$/ && $1 ~ /\/debian(-security)?\/?$/) {
				if ($2 == host || $2 == host "-updates" || $2 == host "-security")
					print "deb", $1, suite substr($2, length(host) + 1), $3
			}' | sort -u
}

# apt_options prints how this machine's apt reaches its mirrors: proxies,
# certificates, credentials.
apt_options() {
	apt-config dump |
		grep -E '^Acquire::(https?(::|-)|Check-|Retries|ForceIPv)' | grep -v ' "";$' || true
	local file parts
	eval "$(apt-config shell file Dir::Etc::netrc/f parts Dir::Etc::netrcparts/d)"
	echo "Dir::Etc::netrc \"${file-}\";"
	echo "Dir::Etc::netrcparts \"${parts-}\";"
}
