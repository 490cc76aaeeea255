package spec

import (
	"path"
	"slices"
	"strings"
)

// Sandbox is how a job is kept from others. The names are those of the directives of systemd.exec(5) that mean the same.
// The zero value confines nothing.
type Sandbox struct {
	// PrivateTmp gives the job a /tmp and a /var/tmp of its own, empty and in memory (tmpfs(5)).
	PrivateTmp bool `cbor:"private_tmp,omitempty"`
	// PrivateIPC gives it System V IPC, POSIX message queues (ipc_namespaces(7)) and a /dev/shm of its own.
	PrivateIPC bool `cbor:"private_ipc,omitempty"`
	// DynamicUser says that Job.Credentials.UID is no account: it is called UserName in the job's view of /etc/passwd and
	// /etc/group, and what was left under it in the kernel's keyrings is cleared.
	DynamicUser bool   `cbor:"dynamic_user,omitempty"`
	UserName    string `cbor:"user_name,omitempty"`
	// BindPaths are folders of the machine that the job sees, and may write to, where PrivateTmp hides them.
	BindPaths []string `cbor:"bind_paths,omitempty"`
}

// Namespaces reports whether s needs any (namespaces(7)).
func (s Sandbox) Namespaces() bool { return s.PrivateTmp || s.PrivateIPC || s.DynamicUser }

// Hides reports whether what is at p on the machine is not there for the job unless it is one of BindPaths.
func (s Sandbox) Hides(p string) bool {
	var dirs []string
	if s.PrivateTmp {
		dirs = append(dirs, "/tmp/", "/var/tmp/")
	}
	if s.PrivateIPC {
		dirs = append(dirs, "/dev/shm/")
	}
	return slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(path.Clean(p), d) })
}
