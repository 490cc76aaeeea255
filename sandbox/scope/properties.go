package scope

import (
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/rtask/rtask/sandbox/wording"
)

// Resources are the settings of a scope that systemd.resource-control(5) describes, in the kernel's units; nil: not set,
// math.MaxUint64: infinity.
type Resources struct {
	MemoryMax, MemoryHigh, MemorySwapMax *uint64
	TasksMax, CPUQuotaPerSecUSec         *uint64
	// CPUWeight is 1 to 10000, or 0 for "idle". IOWeight is 1 to 10000.
	CPUWeight, IOWeight *uint64
	// AllowedCPUs has a bit for each processor, the lowest of the first byte for processor 0.
	AllowedCPUs []byte
	// DevicePolicy is which devices can be opened at all, "auto", "closed" or "strict"; "": not set.
	DevicePolicy string
}

func (r Resources) properties() []unitProperty {
	var p []unitProperty
	for _, one := range []struct {
		name  string
		value *uint64
	}{
		{"MemoryMax", r.MemoryMax}, {"MemoryHigh", r.MemoryHigh}, {"MemorySwapMax", r.MemorySwapMax},
		{"TasksMax", r.TasksMax}, {"CPUQuotaPerSecUSec", r.CPUQuotaPerSecUSec},
		{"CPUWeight", r.CPUWeight}, {"IOWeight", r.IOWeight},
	} {
		if one.value != nil {
			p = append(p, unitProperty{one.name, dbus.MakeVariant(*one.value)})
		}
	}
	if len(r.AllowedCPUs) > 0 {
		p = append(p, unitProperty{"AllowedCPUs", dbus.MakeVariant(r.AllowedCPUs)})
	}
	if r.DevicePolicy != "" {
		p = append(p, unitProperty{"DevicePolicy", dbus.MakeVariant(r.DevicePolicy)})
	}
	return p
}

// maxDescription is the longest description in bytes: one line of a terminal or two.
const maxDescription = 200

// printable makes a description of s, which may hold any bytes. A string on the bus must be UTF-8 without NUL: anything else would end
// the connection.
func printable(s string) string {
	if len(s) > maxDescription {
		s = s[:maxDescription] + "…"
	}
	return wording.Printable(strings.ToValidUTF8(s, "\ufffd"), "")
}

// unitProperty is a(sv) as D-Bus wants it.
type unitProperty struct {
	Name  string
	Value dbus.Variant
}
