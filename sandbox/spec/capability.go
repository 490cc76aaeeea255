package spec

import "strings"

// capabilities are the names of capabilities(7) by their numbers (linux/capability.h), without "CAP_".
const capabilities = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE " +
	"NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT " +
	"SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG " +
	"WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

// Capability returns the bit of a capability by its name, such as CAP_NET_ADMIN in any case; 0: there is none.
func Capability(name string) uint64 {
	short, ok := strings.CutPrefix(strings.ToUpper(name), "CAP_")
	if !ok {
		return 0
	}
	for i, one := range strings.Fields(capabilities) {
		if one == short {
			return 1 << i
		}
	}
	return 0
}

// AllCapabilities has the bits of all that there are.
func AllCapabilities() uint64 { return 1<<len(strings.Fields(capabilities)) - 1 }

// CapabilityNames are the names of the capabilities in set.
func CapabilityNames(set uint64) []string {
	var names []string
	for i, one := range strings.Fields(capabilities) {
		if set&(1<<i) != 0 {
			names = append(names, "CAP_"+one)
		}
	}
	return names
}
