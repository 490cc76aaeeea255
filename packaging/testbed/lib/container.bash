# A container with systemd as PID 1, by systemd-nspawn. Sourced by testbed.
# shellcheck shell=bash disable=SC2034,SC2154

container_setup() {
	install_packages systemd-container mmdebstrap debian-archive-keyring
	container_check
}

# container_check prints what keeps a container from running here.
container_check() {
	local program status=0
	for program in systemd-nspawn mmdebstrap setpriv nsenter flock; do
		command -v "$program" >/dev/null || {
			echo "no $program (testbed setup installs it)"
			status=1
		}
	done
	if ! host_runs_systemd; then
		local mount
		mount=$(cgroup_mount)
		if [[ -z $mount ]]; then
			echo "no cgroup2 hierarchy is mounted"
			status=1
		elif ! rmdir "$(mktemp -d "$mount/rtask-testbed-XXXXXXXX" 2>/dev/null)" 2>/dev/null; then
			echo "no sub-cgroup can be made in $mount"
			status=1
		fi
	fi
	return "$status"
}

host_runs_systemd() {
	[[ -d /run/systemd/system ]]
}

# cgroup_mount [OPTION] prints where the cgroup2 hierarchy is mounted, or the
# version 1 hierarchy with this mount option.
cgroup_mount() {
	awk -v option="${1-}" '
		{ for (i = 7; $i != "-"; i++); type = $(i + 1); options = "," $(i + 3) "," }
		option == "" && type == "cgroup2" || option != "" && type == "cgroup" && index(options, "," option ",") {
			print $5
			exit
		}' /proc/self/mountinfo
}

# container_cgroups NAME prints the sub-cgroups that the container of this name
# was given: ours, and the one that nspawn makes beside it on a hybrid host.
container_cgroups() {
	local mount
	for mount in "$(cgroup_mount)" "$(cgroup_mount name=systemd)"; do
		[[ -z $mount || ! -d $mount/$1 ]] || echo "$mount/$1"
	done
}

# container_boot MODE starts the container; see guest/agent for the mode.
container_boot() {
	local name
	tree_find container
	case_new
	name=${case_folder##*/}
	echo "$1" >"$case_folder/io/mode"
	machine_output

	local arguments=(
		--quiet --settings=no --register=no
		--machine="$name" --hostname=testbed
		--directory="$tree" --volatile=overlay
		--private-network --resolv-conf=off --timezone=off --link-journal=no
		# What systemd and rtask use and nspawn would refuse.
		--system-call-filter='@keyring bpf perf_event_open landlock_create_ruleset landlock_add_rule landlock_restrict_self'
		--console=passive
		--bind="$case_folder/io:/testbed/io"
		"${opt_binds[@]}"
	)
	# Where systemd runs this machine, nspawn gets a delegated scope from it.
	# Elsewhere it starts in a sub-cgroup that we make, so that the container
	# never sees the machine's own.
	local cgroup=''
	if ! host_runs_systemd; then
		cgroup=$(cgroup_mount)/$name
		mkdir "$cgroup"
		arguments+=(--keep-unit)
	fi
	machine=container
	background machine_pid container_exec "$cgroup" "${arguments[@]}" --boot
}

# container_exec CGROUP ARG... becomes systemd-nspawn.
container_exec() {
	exec </dev/null >"$case_folder/console.log" 2>&1
	[[ -z $1 ]] || echo "$BASHPID" >"$1/cgroup.procs"
	# Several boot from one tree, and none writes to it: no lock on it.
	export SYSTEMD_NSPAWN_LOCK=0 SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
	exec setpriv --pdeathsig TERM systemd-nspawn "${@:2}"
}

# container_leader prints the PID that the container's PID 1 has out here.
container_leader() {
	local pid
	for pid in $(pgrep --parent "$machine_pid"); do
		if grep -qE '^NSpid:.*[[:space:]]1$' "/proc/$pid/status" 2>/dev/null; then
			echo "$pid"
		fi
	done
}

# container_stop ends the container at once; its file system is thrown away.
container_stop() {
	local leader tries=100
	# nspawn ends with its container, and cleans up after itself. One that has
	# only just begun gets a container yet.
	while running "$machine_pid" && ((tries-- > 0)); do
		leader=$(container_leader)
		[[ -z $leader ]] || kill -s KILL "$leader" 2>/dev/null || true
		sleep 0.02
	done
	if running "$machine_pid"; then
		end_child "$machine_pid" TERM 10 || end_child "$machine_pid" KILL 5 ||
			say "cannot end systemd-nspawn, PID $machine_pid"
	fi
	machine_pid=''
	container_forget "${case_folder##*/}"
}

# container_forget NAME removes what is left of the container of this name.
container_forget() {
	local cgroup tries=100
	for cgroup in $(container_cgroups "$1"); do
		echo 1 2>/dev/null >"$cgroup/cgroup.kill" || true
		until find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || ((tries-- == 0)); do
			sleep 0.02
		done
	done
	rmdir "/run/systemd/nspawn/propagate/$1" 2>/dev/null || true
}

# container_enter COMMAND... runs COMMAND in the namespaces of the container.
container_enter() {
	exec nsenter --target "$(container_leader)" --all -- \
		env --ignore-environment PATH=/usr/sbin:/usr/bin "$@"
}

container_run() {
	: "${opt_timeout:=600}"
	container_boot run
	machine_deadline "$opt_timeout"
	machine_watch "$reader_pid"
	if [[ $timed_out ]]; then
		(container_enter timeout 5 journalctl --boot --output=short-precise --no-pager) \
			>"$case_folder/io/journal.txt" 2>&1 || true
	elif ! running "$reader_pid"; then
		exit 141 # as if by SIGPIPE: nobody reads our output any more
	fi
	machine_stop
	report container
}

container_shell() {
	container_boot shell
	machine_deadline "${opt_timeout:-infinity}"
	local status=0
	while [[ $(guest_state) != installed ]] && running "$machine_pid" && running "$deadline_pid"; do
		sleep 0.05
	done
	if [[ $(guest_state) == installed ]] && running "$deadline_pid"; then
		background shell_pid container_enter_shell
		machine_watch "$shell_pid"
		if ! running "$shell_pid" && [[ ! $timed_out ]]; then
			wait "$shell_pid" || status=$?
			exit "$status"
		fi
	fi
	machine_stop
	report container
}

# container_enter_shell becomes a root shell, in a unit of its own.
container_enter_shell() {
	local mode=--pipe environment=(
		HOME=/root USER=root LOGNAME=root SHELL=/bin/bash LANG=C.UTF-8 TERM="${TERM:-dumb}"
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
		"${opt_env[@]}"
	)
	if [[ -t 0 && -t 1 ]]; then
		mode=--pty
	fi
	container_enter systemd-run --quiet --collect --wait "$mode" --unit=testbed-shell \
		--service-type=exec --working-directory=/root "${environment[@]/#/--setenv=}" -- /bin/bash --login
}
