package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/rtask/rtask/daemon/auth/cost"
	"github.com/rtask/rtask/sandbox/spec"
)

// The places that names belong in, as scope.where has them.
const (
	inRoot     = "rtask.hcl"
	inFile     = "a file of tasks.d"
	inTask     = "a task"
	inLimits   = "limits { … }"
	inPool     = "pool { … }"
	inSandbox  = "sandbox { … }"
	inDefaults = "defaults { … }"
	inArgon2   = "argon2 { … }"
	inParam    = "param \"NAME\" { … }"
	inWebhook  = "webhook \"NAME\" { … }"

	inRetention = "retention { … }"
)

// builder is a Config while it is made.
type builder struct {
	cfg *Config
	// defaults is what each task begins as.
	defaults draft
	// triggers are those of each task, by its name.
	triggers map[string]triggers
}

// rootScope is what may stand in rtask.hcl.
func rootScope() scope[builder] {
	return scope[builder]{
		where: inRoot,
		attributes: []attribute[builder]{
			{
				name: "limits_unavailable", example: `"refuse"`, fallback: `"refuse"`,
				doc: "What to do with a task whose limits this machine cannot enforce: refuse it, or warn and go on.",
				decode: func(d *decoder, v value, b *builder) {
					d.choice(v, (*string)(&b.cfg.LimitsUnavailable), string(LimitsUnavailableRefuse), string(LimitsUnavailableWarn))
				},
			},
			{
				name: "max_jobs", example: "1000", fallback: "1000",
				doc: "How many jobs may run at a time, of all tasks and commands together.",
				decode: func(d *decoder, v value, b *builder) {
					n := int64(b.cfg.MaxJobs)
					d.integer(v, &n, 1, 1_000_000)
					b.cfg.MaxJobs = int(n)
				},
			},
			{
				name: "dynamic_uids", example: `"70000-70999"`, fallback: `"70000-70999"`,
				doc:    "The uids of jobs of tasks that name no user, one for each job. No account may have one of them.",
				decode: func(d *decoder, v value, b *builder) { d.uidRange(v, &b.cfg.DynamicUIDs) },
			},
			{
				name: "public_url", example: `"https://ci.example.com"`,
				doc:    "How the world calls the gateway, for the URLs that are shown.",
				decode: func(d *decoder, v value, b *builder) { d.publicURL(v, &b.cfg.PublicURL) },
			},
			{
				name: "trusted_proxies", example: `["10.0.0.0/8", "unix"]`,
				doc:    "The addresses and networks of web servers in front whose X-Forwarded-For is believed; unix: any that connects by a Unix socket.",
				decode: func(d *decoder, v value, b *builder) { d.proxies(v, b.cfg) },
			},
			{
				name: "allow_plaintext", example: "false", fallback: "false",
				doc:    "Whether HTTP without TLS may be served on other addresses than loopback.",
				decode: func(d *decoder, v value, b *builder) { d.bool(v, &b.cfg.AllowPlaintext) },
			},
		},
		blocks: []block[builder]{
			{name: "argon2", decode: func(d *decoder, found *hcl.Block, b *builder) {
				decodeBody(d, found.Body, d.tables.argon2, &b.cfg.Argon2)
				d.checkArgon2(found.TypeRange, b.cfg.Argon2)
			}},
			{name: "retention", decode: func(d *decoder, found *hcl.Block, b *builder) {
				decodeBody(d, found.Body, d.tables.retention, &b.cfg.Retention)
			}},
			{name: "defaults", decode: func(d *decoder, found *hcl.Block, b *builder) {
				d.written, d.path = written{}, nil
				decodeBody(d, found.Body, d.tables.defaults, &b.defaults)
				b.defaults.written, d.written = d.written, nil
			}},
		},
	}
}

// fileScope is what may stand in a file of tasks.d.
func fileScope() scope[builder] {
	return scope[builder]{
		where: inFile,
		blocks: []block[builder]{
			{name: "task", label: "NAME", decode: func(d *decoder, found *hcl.Block, b *builder) { b.task(d, found) }},
		},
	}
}

// argon2Scope is what may stand in argon2 { … }. Package cost has the bounds.
func argon2Scope() scope[Argon2] {
	return scope[Argon2]{
		where: inArgon2,
		attributes: []attribute[Argon2]{
			{
				name: "memory", example: `"19M"`, fallback: `"19M"`,
				doc: "The memory that one hash takes.",
				decode: func(d *decoder, v value, a *Argon2) {
					size := int64(a.MemoryKiB) << 10
					d.sizeWithin(v, &size, 0, cost.MaxMemory<<10)
					a.MemoryKiB = uint32(size >> 10)
				},
			},
			{
				name: "time", example: "2", fallback: "2",
				doc: "The number of passes over that memory.",
				decode: func(d *decoder, v value, a *Argon2) {
					n := int64(a.Time)
					d.integer(v, &n, 1, cost.MaxTime)
					a.Time = uint32(n)
				},
			},
			{
				name: "threads", example: "1", fallback: "1",
				doc: "The number of lanes.",
				decode: func(d *decoder, v value, a *Argon2) {
					n := int64(a.Threads)
					d.integer(v, &n, 1, cost.MaxThreads)
					a.Threads = uint8(n)
				},
			},
		},
	}
}

// retentionScope is what may stand in retention { … }.
func retentionScope() scope[spec.Retention] {
	return scope[spec.Retention]{
		where: inRetention,
		attributes: []attribute[spec.Retention]{
			{
				name: "keep_for", example: `"30d"`, fallback: `"30d"`,
				doc: "How long a job that has ended is known.",
				decode: func(d *decoder, v value, r *spec.Retention) {
					if d.infinite(v) {
						r.KeepFor = 0
						return
					}
					got := r.KeepFor
					d.duration(v, &got, false)
					if got <= 0 {
						d.errorf(v.rng(), v.usage(), "keep_for must be above 0")
						return
					}
					r.KeepFor = got
				},
			},
			{
				name: "keep_bytes", example: `"2G"`, fallback: `"2G"`,
				doc: "How much space the output of jobs that have ended takes up on disk.",
				decode: func(d *decoder, v value, r *spec.Retention) {
					if d.infinite(v) {
						r.KeepBytes = 0
						return
					}
					got := r.KeepBytes
					d.size(v, &got)
					if got <= 0 {
						d.errorf(v.rng(), v.usage(), "keep_bytes must be above 0")
						return
					}
					r.KeepBytes = got
				},
			},
			{
				name: "keep_jobs", example: "100000", fallback: "100000",
				doc: "How many jobs that have ended are known.",
				decode: func(d *decoder, v value, r *spec.Retention) {
					got := int64(r.KeepJobs)
					if d.infinite(v) {
						got = 0
					} else {
						d.integer(v, &got, 1, 1_000_000_000)
					}
					r.KeepJobs = int(got)
				},
			},
		},
	}
}

// publicURL sets dst to the beginning of a URL, without a slash at its end.
func (d *decoder) publicURL(v value, dst *string) {
	s, ok := d.string(v, false)
	if !ok {
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		d.errorf(v.rng(), v.usage(), "public_url is not https://HOST, perhaps with a path")
		return
	}
	*dst = strings.TrimRight(s, "/")
}

// infinite reports whether v is "infinity". It reports no errors.
func (d *decoder) infinite(v value) bool {
	text, err := strconv.Unquote(d.text(v.rng()))
	return err == nil && text == "infinity"
}

// checkArgon2 reports parameters that cannot be used, and those weaker than all that the OWASP Password Storage Cheat Sheet
// names as sufficient.
func (d *decoder) checkArgon2(r hcl.Range, a Argon2) {
	if err := (cost.Params{Memory: a.MemoryKiB, Time: a.Time, Threads: a.Threads}).Check(); err != nil {
		d.errorf(r, "", "%v", err)
		return
	}
	for _, enough := range []struct{ memory, time uint32 }{{46, 1}, {19, 2}, {12, 3}, {9, 4}, {7, 5}} {
		if a.MemoryKiB >= enough.memory<<10 && a.Time >= enough.time {
			return
		}
	}
	d.errorf(r, "At least: memory = \"19M\" with time = 2; or 46M with 1, 12M with 3, 9M with 4, 7M with 5.",
		"argon2 with %d KiB of memory and time = %d is too weak", a.MemoryKiB, a.Time)
}

// proxies sets what stands for whom trusted_proxies names: addresses, networks, and "unix".
func (d *decoder) proxies(v value, cfg *Config) {
	var all []netip.Prefix
	var names []string
	unix := false
	d.names(v, &names, func(e value, s string) bool {
		if s == "unix" {
			unix = true
			return true
		}
		p, err := netip.ParsePrefix(s)
		if a, addrErr := netip.ParseAddr(s); addrErr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil:
			d.errorf(e.rng(), v.usage(), "%s is not an address, a network or \"unix\": %q", e.name, s)
			return false
		case p != p.Masked():
			d.errorf(e.rng(), fmt.Sprintf("Write it as %q.", p.Masked()), "%s has bits beyond its prefix: %q", e.name, s)
			return false
		}
		all = append(all, p)
		return true
	})
	cfg.TrustedProxies, cfg.TrustUnix = all, unix
}

// uidRange sets dst to a range written "FIRST-LAST".
func (d *decoder) uidRange(v value, dst *spec.UIDRange) {
	text, ok := d.string(v, false)
	if !ok {
		return
	}
	left, right, _ := strings.Cut(text, "-")
	first, err1 := strconv.ParseUint(strings.TrimSpace(left), 10, 32)
	last, err2 := strconv.ParseUint(strings.TrimSpace(right), 10, 32)
	problem := ""
	switch {
	case err1 != nil || err2 != nil:
		problem = "it must be two uids with a hyphen between them"
	case first > last:
		problem = "its end is before its beginning"
	case first < 1000:
		problem = "uids below 1000 are the system's own"
	case first <= 65535 && last >= 65534:
		problem = "65534 is nobody and 65535 is no uid"
	case last == 1<<32-1:
		problem = "4294967295 is no uid"
	}
	if problem != "" {
		d.refuse(v, "a range of uids", fmt.Errorf("%q: %s", text, problem))
		return
	}
	*dst = spec.UIDRange{First: uint32(first), Last: uint32(last)}
}
