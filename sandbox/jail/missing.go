package jail

import "github.com/rtask/rtask/sandbox/spec"

// Missing tries which switches that need namespaces this process can give, and returns the others, each with the reason. An
// error is that it can give none.
func Missing() (map[string]string, error) {
	try := func(s spec.Sandbox) error {
		r, err := NewRoom(s, "/", nil)
		if err == nil {
			r.Close()
		}
		return err
	}
	if err := try(spec.Sandbox{PrivateTmp: true}); err != nil {
		return nil, err
	}
	missing := map[string]string{}
	for _, one := range []struct {
		s     spec.Sandbox
		names []string
	}{
		{spec.Sandbox{PrivateDevices: true}, []string{"private_devices"}},
		{spec.Sandbox{PrivateIPC: true}, []string{"private_ipc"}},
		{spec.Sandbox{PrivateNetwork: true}, []string{"private_network"}},
		{spec.Sandbox{ProtectHostname: true}, []string{"protect_hostname"}},
		// /proc can be mounted for a PID namespace of its own alone, and where nothing is mounted on the machine's
		// (mount_too_revealing() of fs/namespace.c).
		{spec.Sandbox{PrivatePIDs: true}, []string{"private_pids", "proc_subset", "protect_proc"}},
	} {
		if err := try(one.s); err != nil {
			for _, name := range one.names {
				missing[name] = err.Error()
			}
		}
	}
	return missing, nil
}
