package e2e

import "os"

// count returns how often something is tried that is tried full times where RTASK_SOAK is set, as packaging/soak does: else a fifth of it.
func count(full int) int {
	if os.Getenv("RTASK_SOAK") != "" {
		return full
	}
	return max(full/5, 1)
}
