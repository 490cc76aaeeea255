# A virtual machine with Debian's own kernel, by qemu. Sourced by testbed.
#
# Its disks: the system (a throwaway view of the tree's image, or the file that
# --disk names), the job (a tar archive with what the guest is to find, see
# guest/agent), the results (a tar archive that the guest writes).
# shellcheck shell=bash disable=SC2034,SC2154

readonly VM_GRACE=30 # seconds that the guest has, after the deadline, for its last words

vm_setup() {
	install_packages mmdebstrap debian-archive-keyring qemu-system-x86 e2fsprogs
	vm_check
}

# vm_check prints what keeps a virtual machine from running here.
vm_check() {
	local program status=0
	if [[ $(uname -m) != x86_64 ]]; then
		echo "virtual machines are for x86-64 only, so far"
		status=1
	fi
	for program in qemu-system-x86_64 mke2fs mmdebstrap setpriv flock; do
		command -v "$program" >/dev/null || {
			echo "no $program (testbed setup vm installs it)"
			status=1
		}
	done
	return "$status"
}

vm_run() {
	: "${opt_timeout:=600}"
	tree_find vm
	case_new
	echo run >"$case_folder/io/mode"
	echo $(($(date +%s) + opt_timeout)) >"$case_folder/io/deadline"
	if [[ $opt_disk && ! $opt_power_cut ]]; then
		echo poweroff >"$case_folder/io/finish"
	else
		echo cut >"$case_folder/io/finish"
	fi
	vm_accelerator
	vm_disks
	machine_output
	machine_deadline $((opt_timeout + VM_GRACE))
	vm_boot
	machine_watch "$reader_pid"
	if [[ ! $timed_out ]] && ! running "$reader_pid"; then
		exit 141 # as if by SIGPIPE: nobody reads our output any more
	fi
	machine_stop
	vm_results
	report "virtual machine"
}

# vm_disks makes the disks of this run.
vm_disks() {
	vm_system="snapshot=on,file=$(qemu_value "$tree.img")"
	if [[ $opt_disk ]]; then
		if [[ ! -e $opt_disk ]]; then
			run_helper cp --sparse=always --reflink=auto -- "$tree.img" "$opt_disk.new"
			mv -- "$opt_disk.new" "$opt_disk"
		elif [[ $(disk_id "$opt_disk") != "$(disk_id "$tree.img")" ]]; then
			die "$opt_disk was made for another kernel; remove it to go on"
		fi
		vm_system="cache=writeback,file=$(qemu_value "$opt_disk")"
	fi

	local bind from to
	: >"$case_folder/io/copy-back"
	: >"$case_folder/io/read-only"
	for bind in "${opt_binds[@]}"; do
		to=${bind#*:/}
		case $bind in
		--bind=*) printf '%s\0' "$to" >>"$case_folder/io/copy-back" ;;
		*) printf '%s\0' "$to" >>"$case_folder/io/read-only" ;;
		esac
	done
	pack --create "$case_folder/io" testbed/io
	for bind in "${opt_binds[@]}"; do
		from=${bind#*=} to=${bind#*:/}
		pack --append "${from%%:*}" "${to%/}"
	done
	truncate --size=16G "$case_folder/results.tar" # sparse
}

# pack --create|--append FROM TO puts a file or folder into the job, as TO.
pack() {
	local folder=$2 name=. pattern='^\.' status=0
	if [[ ! -d $2 ]]; then
		folder=$(dirname "$2") name=$(basename "$2") pattern='^.*$'
	fi
	run_helper tar "$1" --file="$case_folder/job.tar" --numeric-owner --warning=no-file-changed \
		--transform="s|$pattern|$(sed_replacement "$3")|S" -C "$folder" -- "$name" || status=$?
	((status < 2)) || die "cannot copy $2 into the virtual machine" # 1: it changed meanwhile
}

# disk_id FILE prints the identity that mke2fs gave the file system in FILE.
disk_id() {
	blkid --probe --match-tag UUID --output value -- "$1"
}

# qemu_value TEXT prints TEXT as a value in an option of qemu.
qemu_value() {
	echo "${1//,/,,}"
}

# sed_replacement TEXT prints TEXT as the right-hand side of an s|||.
# shellcheck disable=SC2001
sed_replacement() {
	sed -e 's/[|&\\]/\\&/g' <<<"$1"
}

# vm_boot starts the virtual machine.
vm_boot() {
	local folder
	folder=$(qemu_value "$case_folder")
	machine=vm
	background machine_pid setpriv --pdeathsig KILL \
		qemu-system-x86_64 "${vm_accelerator[@]}" "${VM_HARDWARE[@]}" -smp "${opt_cpus:-2}" \
		-kernel "$tree/vmlinuz" -initrd "$tree/initrd.img" -append "$(vm_command_line)" \
		-drive "if=virtio,format=raw,$vm_system" \
		-drive "if=virtio,format=raw,readonly=on,file=$folder/job.tar" \
		-drive "if=virtio,format=raw,cache=unsafe,file=$folder/results.tar" \
		-device virtio-serial \
		-chardev "file,id=output,path=$folder/io/output" \
		-device virtserialport,chardev=output,name=testbed.output \
		-chardev "file,id=state,path=$folder/io/state" \
		-device virtserialport,chardev=state,name=testbed.state \
		</dev/null >"$case_folder/console.log" 2>&1
}

# vm_command_line prints the kernel's. The machine-id is that of the tree, so
# that a kept disk has one journal. Where this machine is busy, the kernel would
# find its timer late, and take it for broken.
vm_command_line() {
	echo "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests no_timer_check root=/dev/vda rw rdinit=/testbed-init" \
		"systemd.machine_id=$(sha256sum <<<"${tree##*/}" | cut -c 1-32)"
}

readonly VM_HARDWARE=(-m 2048 -nodefaults -nographic -nic none -no-reboot -serial stdio)

# vm_accelerator sets the array of this name to qemu's options for the fastest
# accelerator that works. /dev/kvm may be there and guests not boot on it, so
# one has to show that it does; the answer is kept with the tree.
vm_accelerator() {
	local answer=$tree.kvm
	if [[ ! -w /dev/kvm ]]; then
		vm_accelerator=("${VM_TCG[@]}")
		return
	fi
	if [[ ! -e $answer || $(head -n 1 "$answer") != "$(uname -rv)" ]]; then
		{
			uname -rv
			vm_probe_kvm && echo kvm || echo tcg
		} >"$case_folder/kvm"
		mv "$case_folder/kvm" "$answer"
	fi
	case $(tail -n 1 "$answer") in
	kvm) vm_accelerator=("${VM_KVM[@]}") ;;
	*) vm_accelerator=("${VM_TCG[@]}") ;;
	esac
}

readonly VM_KVM=(-accel kvm -cpu host)
# shellcheck disable=SC2054
readonly VM_TCG=(-accel tcg,thread=multi,tb-size=512 -cpu Nehalem,+rdrand)

# vm_probe_kvm: a kernel without a disk panics and restarts, which ends qemu.
vm_probe_kvm() {
	local console=$case_folder/probe.log
	run_helper timeout --kill-after=1 10 \
		qemu-system-x86_64 "${VM_KVM[@]}" "${VM_HARDWARE[@]}" \
		-kernel "$tree/vmlinuz" -append "console=ttyS0 panic=-1" \
		</dev/null >"$console" 2>&1 || return 1
	grep -q 'Kernel panic' "$console"
}

# vm_stop cuts the power, unless the machine is down.
vm_stop() {
	if running "$machine_pid"; then
		end_child "$machine_pid" TERM 10 || end_child "$machine_pid" KILL 5 ||
			say "cannot end qemu, PID $machine_pid"
	fi
	machine_pid=''
}

# vm_results unpacks what the guest left: into the io folder of the case, and
# into the folders that --bind named.
vm_results() {
	local bind from to parts results=$case_folder/results.tar
	run_helper tar --extract --file="$results" -C "$case_folder/io" --strip-components=2 testbed/io 2>/dev/null ||
		return 0 # it left nothing
	if [[ -e $case_folder/io/timed-out ]]; then
		timed_out=yes
	fi
	for bind in "${opt_binds[@]}"; do
		[[ $bind == --bind=* ]] || continue
		from=${bind#*=} from=${from%%:*} to=${bind#*:/} to=${to%/}
		parts=${to//[!\/]/}
		run_helper tar --extract --file="$results" --numeric-owner --preserve-permissions -C "$from" \
			--strip-components=$((${#parts} + 1)) -- "$to" ||
			say "cannot bring back all of $from"
	done
}
