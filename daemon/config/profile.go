package config

import (
	"strings"

	"github.com/rtask/rtask/sandbox/spec"
)

// The profiles.
const (
	ProfileOff     = "off"
	ProfileDefault = "default"
	ProfileStrict  = "strict"
)

// profile returns what a profile is. The manual has each as a table, with why.
func profile(name string) spec.Sandbox {
	switch name {
	case ProfileDefault:
		return spec.Sandbox{
			Profile:               name,
			NoNewPrivileges:       true,
			PrivateTmp:            true,
			PrivateIPC:            true,
			PrivatePIDs:           true,
			ProtectHostname:       true,
			ProtectClock:          true,
			ProtectKernelTunables: true,
			ProtectKernelLogs:     true,
			ProtectControlGroups:  true,
			HideUsers:             true,
			CapabilityBoundingSet: without("CAP_AUDIT_CONTROL CAP_AUDIT_READ CAP_BLOCK_SUSPEND CAP_BPF CAP_CHECKPOINT_RESTORE " +
				"CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_PERFMON CAP_SYSLOG CAP_SYS_MODULE CAP_SYS_PACCT CAP_SYS_PTRACE CAP_SYS_RAWIO " +
				"CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_WAKE_ALARM"),
			SystemCallFilter: []string{"~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap bpf io_uring_enter " +
				"io_uring_register io_uring_setup perf_event_open userfaultfd"},
			SystemCallErrorNumber:   "EPERM",
			SystemCallArchitectures: []string{"native"},
			RestrictAddressFamilies: []string{"AF_INET AF_INET6 AF_NETLINK AF_UNIX"},
			RestrictNamespaces:      []string{"yes"},
			RestrictRealtime:        true,
			LockPersonality:         true,
		}
	case ProfileStrict:
		none, mask := uint64(0), uint32(0o077)
		return spec.Sandbox{
			Profile:                 name,
			NoNewPrivileges:         true,
			PrivateTmp:              true,
			PrivateDevices:          true,
			PrivateNetwork:          true,
			PrivateIPC:              true,
			PrivatePIDs:             true,
			PrivateUsers:            true,
			ProtectSystem:           "strict",
			ProtectHome:             "true",
			ProtectProc:             "invisible",
			ProcSubset:              "pid",
			ProtectHostname:         true,
			ProtectClock:            true,
			ProtectKernelTunables:   true,
			ProtectKernelModules:    true,
			ProtectKernelLogs:       true,
			ProtectControlGroups:    true,
			HideRun:                 true,
			CapabilityBoundingSet:   &none,
			SystemCallFilter:        []string{"@system-service", "~@privileged @keyring userfaultfd"},
			SystemCallErrorNumber:   "EPERM",
			SystemCallArchitectures: []string{"native"},
			RestrictAddressFamilies: []string{"AF_INET AF_INET6 AF_UNIX"},
			RestrictNamespaces:      []string{"yes"},
			RestrictRealtime:        true,
			RestrictSUIDSGID:        true,
			LockPersonality:         true,
			MemoryDenyWriteExecute:  true,
			UMask:                   &mask,
		}
	default:
		return spec.Sandbox{Profile: ProfileOff}
	}
}

// CommandSandbox is what a command has of which nothing is said: the profile "off", and no_new_privileges.
func CommandSandbox() spec.Sandbox {
	s := profile(ProfileOff)
	s.NoNewPrivileges = true
	return s
}

// without is all capabilities but those that names has.
func without(names string) *uint64 {
	set := spec.AllCapabilities()
	for _, name := range strings.Fields(names) {
		set &^= spec.Capability(name)
	}
	return &set
}
