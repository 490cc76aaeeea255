package seccomp

import "runtime"

const runtimeIsAMD64 = runtime.GOARCH == "amd64"

// machine is the ABI of the machine that the tests run on.
func machine() abi {
	if runtimeIsAMD64 {
		return x86_64
	}
	return arm64
}
