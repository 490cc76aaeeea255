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
	inSchedule = "schedule { … }"
	inRetry    = "retry { … }"
	inPath     = "path { … }"

	inRetention = "retention { … }"
	inRemote    = "remote { … }"
	inAuthority = "authority { … }"
	inProvider  = "provider \"NAME\" { … }"
	inRole      = "role \"NAME\" { … }"
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
				name: "max_jobs", example: "1000", fallback: "1000",
				kind: integer(func(b *builder) *int { return &b.cfg.MaxJobs }, 1, maxCount),
				doc: "How many jobs may run at a time, of all tasks and commands together.\n\n" +
					"When that many run, up to an eighth more may run, so that no API key, local user or webhook can keep all others out. An " +
					"API key, user or webhook that already has as many jobs as remain free of that eighth gets no more. A job without a " +
					"`user` also needs one of `dynamic_uids`, so let these have an eighth more numbers than `max_jobs`.",
			},
			{
				name: "limits_unavailable", example: `"refuse"`, fallback: `"refuse"`,
				kind: choice(func(b *builder) *LimitsUnavailable { return &b.cfg.LimitsUnavailable }, LimitsUnavailableRefuse, LimitsUnavailableWarn),
				doc: "What to do with a task whose limits this machine cannot enforce: `\"refuse\"` to start it, or `\"warn\"` and start it without " +
					"them. `rtaskctl config check --task`, `tasks show` and `rtaskctl status` say then which limits are not in force.",
			},
			{
				name: "dynamic_uids", example: `"70000-70999"`, fallback: `"70000-70999"`,
				kind: text(func(d *decoder, v value, b *builder) { d.uidRange(v, &b.cfg.DynamicUIDs) }),
				doc: "The range of user numbers for tasks that name no user, with both ends in it. No other job has that number at the same " +
					"time, but a later job may get it. So that files of an earlier job give nobody the rights of a later one, a job without " +
					"a user always has `private_tmp`, `private_ipc`, `restrict_suid_sgid` and with that `no_new_privileges`, also under the " +
					"profile `off`, and whatever these switches say. Without namespaces it has only the last two. Other files that it " +
					"leaves, in a folder that everybody can write to, belong to the job that has the number next: give a user to a task " +
					"that keeps files. Numbers below 1000, 65534, 65535 and 4294967295 cannot be in it, and no account should be.",
			},
			{
				name: "public_url", example: `"https://ci.example.com"`,
				kind: text(func(d *decoder, v value, b *builder) { d.publicURL(v, &b.cfg.PublicURL) }),
				doc: "How the world calls rtask-gateway(8), such as `\"https://ci.example.com\"`. It is the beginning of the URLs that " +
					"`rtaskctl webhook list` shows, and decides nothing.",
			},
			{
				name: "trusted_proxies", example: `["10.0.0.0/8", "unix"]`,
				kind: texts(func(d *decoder, v value, b *builder) { d.proxies(v, b.cfg) }),
				doc: "The addresses and networks of web servers in front of the HTTP API whose `X-Forwarded-For` is believed, such as " +
					"`[\"127.0.0.1\", \"10.0.0.0/8\"]`. `unix` is a web server that connects by a Unix socket; the mode of that socket " +
					"decides who else can. Otherwise, the address of a client is that of its connection, and of a Unix socket's client it " +
					"is `unix`. It is what logs show, and what bad keys are counted by.",
			},
			{
				name: "allow_plaintext", example: "false", fallback: "false",
				kind: boolean(func(b *builder) *bool { return &b.cfg.AllowPlaintext }),
				doc: "Whether rtask-gateway(8) serves HTTP without TLS on addresses that others than this machine can reach. Everyone on " +
					"the way can read what is sent, API keys included, so use this only in a network that you share with nothing but a " +
					"proxy. A change applies to the next request.",
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
			{name: "remote", decode: func(d *decoder, found *hcl.Block, b *builder) {
				decodeBody(d, found.Body, d.tables.remote, &b.cfg.Remote)
			}},
			{name: "authority", decode: func(d *decoder, found *hcl.Block, b *builder) {
				decodeBody(d, found.Body, d.tables.authority, &b.cfg.Authority)
			}},
			{name: "provider", label: "NAME", decode: func(d *decoder, found *hcl.Block, b *builder) { b.provider(d, found) }},
			{name: "role", label: "NAME", decode: func(d *decoder, found *hcl.Block, b *builder) { b.role(d, found) }},
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
				kind: kind[Argon2]{word: "size", most: sizeText(cost.MaxMemory << 10), decode: func(d *decoder, v value, a *Argon2) {
					size := int64(a.MemoryKiB) << 10
					d.sizeWithin(v, &size, 0, cost.MaxMemory<<10)
					a.MemoryKiB = uint32(size >> 10)
				}},
				doc: "The memory that one hash takes.",
			},
			{
				name: "time", example: "2", fallback: "2",
				kind: integer(func(a *Argon2) *uint32 { return &a.Time }, 1, cost.MaxTime),
				doc:  "The number of passes over that memory.",
			},
			{
				name: "threads", example: "1", fallback: "1",
				kind: integer(func(a *Argon2) *uint8 { return &a.Threads }, 1, cost.MaxThreads),
				doc:  "The number of lanes.",
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
				kind: kind[spec.Retention]{word: "duration", decode: func(d *decoder, v value, r *spec.Retention) {
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
				}},
				doc: "How long a job is known after its end.",
			},
			{
				name: "keep_bytes", example: `"2G"`, fallback: `"2G"`,
				kind: kind[spec.Retention]{word: "size", decode: func(d *decoder, v value, r *spec.Retention) {
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
				}},
				doc: "How much space on disk the logs of such jobs take up.",
			},
			{
				name: "keep_jobs", example: "100000", fallback: "100000",
				kind: kind[spec.Retention]{word: "number", most: "1000000000", decode: func(d *decoder, v value, r *spec.Retention) {
					got := int64(r.KeepJobs)
					if d.infinite(v) {
						got = 0
					} else {
						d.integer(v, &got, 1, 1_000_000_000)
					}
					r.KeepJobs = int(got)
				}},
				doc: "How many such jobs are known.",
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
