# What container and virtual machine share. Sourced by testbed.
# shellcheck shell=bash disable=SC2034,SC2154

readonly EXIT_TIMEOUT=124 # of the testbed, when the time is up
readonly EXIT_TESTBED=125 # of the testbed, when it failed itself

say() {
	echo "testbed: $*" >&2
}

die() {
	say "$*"
	exit "$EXIT_TESTBED"
}

usage_error() {
	say "$1"
	usage >&2
	exit "$EXIT_TESTBED"
}

# become_root ARG... starts this script again with sudo, unless root runs it.
become_root() {
	((EUID != 0)) || return 0
	command -v sudo >/dev/null || die "needs root, and there is no sudo"
	local name keep=("RTASK_TESTBED_CACHE=$(cache_folder)")
	for name in RTASK_TESTBED_MIRROR RTASK_TESTBED_SUITE TERM http_proxy https_proxy no_proxy; do
		[[ -z ${!name-} ]] || keep+=("$name=${!name}")
	done
	exec sudo -- env "${keep[@]}" "$here/testbed" "$@"
}

cache_folder() {
	realpath --canonicalize-missing -- "${RTASK_TESTBED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rtask-testbed}"
}

# need CHECK: CHECK prints a line for each thing that is missing.
need() {
	local missing
	missing=$("$1") || die "cannot go on:"$'\n'"$missing"
}

# install_packages PACKAGE... installs what is missing, with apt.
install_packages() {
	local package missing=()
	for package; do
		[[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
			missing+=("$package")
	done
	((${#missing[@]})) || return 0
	command -v apt-get >/dev/null || die "cannot install ${missing[*]}: this is no Debian or Ubuntu"
	say "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get --quiet --quiet update || say "apt-get update failed; trying with the lists there are"
	apt-get --quiet --yes --no-install-recommends -o DPkg::Lock::Timeout=300 install "${missing[@]}" >&2 ||
		die "cannot install ${missing[*]}"
}

# What runs in the background now; empty when it does not.
machine_pid=''  # systemd-nspawn or qemu
reader_pid=''   # copies the output of the command to ours
deadline_pid='' # a sleep
helper_pid=''   # of run_helper
shell_pid=''

# background VARIABLE COMMAND... starts COMMAND and puts its PID in VARIABLE.
# It gets our standard input, and none of our locks and pipes.
background() {
	local -n background_pid=$1
	shift
	"$@" <&0 7>&- 8>&- 9>&- &
	background_pid=$!
}

# run_helper COMMAND... runs COMMAND, a program, so that a signal to us ends it
# with all that it started. It holds our locks.
run_helper() {
	local status=0
	setsid "$@" <&0 &
	helper_pid=$!
	wait "$helper_pid" || status=$?
	helper_pid=''
	return "$status"
}

# wait_for PID...: until one of them has ended.
wait_for() {
	wait -n "$@" || true
}

running() {
	[[ $1 ]] && kill -0 -- "$1" 2>/dev/null
}

# end_child PID SIGNAL SECONDS sends the signal to a child of ours and waits
# for its end; it fails if that does not come. -PID means a process group.
end_child() {
	local tries=$(($3 * 50))
	kill -s "$2" -- "$1" 2>/dev/null || true
	while running "$1" && ((tries-- > 0)); do
		sleep 0.02
	done
	! running "$1"
}

# catch_end has everything undone that this run did, however it ends.
catch_end() {
	trap undo EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

undo() {
	local status=$?
	trap '' HUP INT TERM
	trap - EXIT
	set +e
	[[ -z $helper_pid ]] || end_child "-$helper_pid" TERM 10 || end_child "-$helper_pid" KILL 5
	[[ -z $tree_building ]] || rm -rf --one-file-system "$tree_building"
	machine_stop
	[[ -z $case_folder ]] || rm -rf --one-file-system "$case_folder"
	exit "$status"
}

# A case is one boot: a folder under the cache, locked for as long as its
# testbed lives, so that a later one clears away what a killed one left. Its
# name is the name of the machine, too.
#
#   lock         locked as file descriptor 9
#   io/          shared with the guest, see guest/agent
#   console.log  what the machine says while it boots
case_folder=''

case_new() {
	local runs
	runs=$(cache_folder)/runs
	mkdir -p "$runs"
	exec 7>"$runs/.lock" # a folder without a lock is seen by nobody
	flock 7
	case_sweep "$runs"
	case_folder=$(mktemp -d "$runs/rtask-testbed-XXXXXXXX")
	exec 9>"$case_folder/lock"
	flock 9
	exec 7>&-

	local io=$case_folder/io
	install -d -m 755 "$io" "$io/deb"
	((${#opt_debs[@]} == 0)) || cp -- "${opt_debs[@]}" "$io/deb/"
	print_list "${operands[@]}" >"$io/argv"
	print_list "${opt_env[@]}" >"$io/environment"
	if [[ $opt_logs ]]; then
		mkdir -p "$opt_logs"
		: >"$io/want-journal"
	fi
}

# print_list ITEM... prints the items, each ended by a zero byte.
print_list() {
	(($# == 0)) || printf '%s\0' "$@"
}

# case_sweep RUNS removes the cases there whose testbed was killed.
case_sweep() {
	local dead
	for dead in "$1"/rtask-testbed-*; do
		[[ -d $dead ]] || continue
		(
			flock --nonblock 9 || exit 0
			container_forget "${dead##*/}"
			rm -rf --one-file-system "$dead"
		) 7>&- 9>>"$dead/lock"
	done
}

machine=''   # container or vm, once it was started
timed_out='' # yes, once the time was up

# machine_stop ends what runs in the background. The machine may be up still.
machine_stop() {
	local pid
	for pid in $shell_pid $deadline_pid; do
		{ kill "$pid" || true; wait "$pid" || true; } 2>/dev/null # bash would tell how it ended
	done
	if [[ $machine ]]; then
		"${machine}_stop"
	fi
	exec 8>&- # the output ends here
	if [[ $reader_pid ]]; then
		wait "$reader_pid" 2>/dev/null || true
	fi
	machine='' reader_pid='' deadline_pid='' shell_pid=''
}

# machine_deadline SECONDS sets the end of the time.
machine_deadline() {
	background deadline_pid setpriv --pdeathsig KILL sleep "$1"
}

# machine_watch PID... waits until the machine, the time or one of these ends.
machine_watch() {
	wait_for "$machine_pid" "$deadline_pid" "$@"
	if ! running "$deadline_pid"; then
		timed_out=yes
	fi
}

# machine_output opens the pipe that carries the output of the command.
machine_output() {
	mkfifo -m 622 "$case_folder/io/output"
	exec 8<>"$case_folder/io/output"
	exec 7<"$case_folder/io/output"
	background reader_pid cat <&7
	exec 7<&-
}

# The last step that the agent inside reached.
guest_state() {
	tail -n 1 "$case_folder/io/state" 2>/dev/null || true
}

# report WHAT says how the run ended, hands out the logs and returns the status.
report() {
	local what=$1 io=$case_folder/io status=$EXIT_TESTBED message
	[[ ! -s $io/failed-units ]] || say "the $what booted, but these units failed:"$'\n'"$(<"$io/failed-units")"
	if [[ -s $io/status ]]; then
		status=$(<"$io/status")
		message="the command ended with $status"
	elif [[ $timed_out ]]; then
		status=$EXIT_TIMEOUT
		message="timed out after $opt_timeout s"
		case $(guest_state) in
		'' | started) message+=" while the $what booted" ;;
		booted) message+=" while the package was installed" ;;
		esac
	else
		case $(guest_state) in
		'' | started) message="the $what did not boot" ;;
		booted) message="the package was not installed" ;;
		*) message="the $what went down before the command ended" ;;
		esac
	fi
	if [[ $opt_logs ]]; then
		keep_logs
	fi
	if ((status != 0)); then
		case $(guest_state) in
		'' | started) show_end "$case_folder/console.log" "console of the $what" ;;
		booted) show_end "$io/install.log" "installation" ;;
		*) show_end "$io/journal.txt" "journal of the $what" ;;
		esac
		say "$message"
	fi
	return "$status"
}

keep_logs() {
	local file
	for file in "$case_folder"/console.log "$case_folder"/io/{journal.txt,install.log}; do
		[[ ! -e $file ]] || cp -- "$file" "$opt_logs/"
	done
	[[ -z ${SUDO_UID-} ]] || chown -R "$SUDO_UID:${SUDO_GID-}" "$opt_logs"
}

# show_end FILE NAME
show_end() {
	[[ -s $1 ]] || return 0
	say "the last lines of the $2:"
	tail -n 80 "$1" >&2
}
