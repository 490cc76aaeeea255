package cgroup

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rtask/rtask/sandbox/spec"
)

// Usage reads what the group used. What the kernel does not tell stays nil.
func (g *Group) Usage() spec.Usage {
	var u spec.Usage
	if v, err := keyed(g.dir, "cpu.stat", "usage_usec"); err == nil {
		u.CPUUsec = &v
	}
	if v, err := single(g.dir, "memory.peak"); err == nil {
		u.MemoryPeak = &v
	}
	if v, err := single(g.dir, "pids.peak"); err == nil {
		u.TasksPeak = &v
	}
	g.ioUsage(&u)
	return u
}

// ioUsage adds what io.stat says, summed over all devices.
func (g *Group) ioUsage(u *spec.Usage) {
	b, err := read(filepath.Join(g.dir, "io.stat"))
	if err != nil {
		return
	}
	sums := sumIO(string(b))
	get := func(key string) *uint64 {
		v := sums[key]
		return &v
	}
	u.IOReadBytes, u.IOWriteBytes, u.IOReadOps, u.IOWriteOps = get("rbytes"), get("wbytes"), get("rios"), get("wios")
}

// sumIO adds up the numbers of each key of io.stat: a line for each device, "8:0 rbytes=1 wbytes=2 …".
func sumIO(stat string) map[string]uint64 {
	sums := map[string]uint64{}
	for field := range strings.FieldsSeq(stat) {
		key, value, ok := strings.Cut(field, "=")
		if n, err := strconv.ParseUint(value, 10, 64); ok && err == nil {
			sums[key] += n
		}
	}
	return sums
}
