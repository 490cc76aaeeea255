package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/control"
	"github.com/rtask/rtask/daemon/issuer"
	"github.com/rtask/rtask/sandbox/durable"
)

// tickEvery is how often the authority looks at what time has brought.
const tickEvery = time.Minute

// sealed reports whether the engine's keys come from systemd: it runs as a service of the system's manager, not in the foreground.
func (e *engine) sealed() bool {
	return e.Gateway == nil && os.Geteuid() == 0 && os.Getenv("INVOCATION_ID") != "" && e.host.Kind() != "none" // systemd.exec(5)
}

// gatewayKey makes the key of the gateway's certificate if there is none: before there is an authority, so that the gateway has it when
// there is one, or after it was lost. It is for a gateway that this engine starts. An engine that ended before both the key was kept and
// the authority knew it leaves that to the next start.
func (e *engine) gatewayKey() error {
	known, err := e.credential(control.CredentialGateway)
	if err != nil {
		return err
	}
	key := known
	if known == nil {
		if key, err = authority.NewKey(); err != nil {
			return err
		}
	}
	if exists, _ := e.authority.Exists(); exists {
		csr, err := authority.NewRequest(key)
		if errors.Is(err, authority.ErrBadKey) { // none that an engine makes: the gateway says whether it can use it
			return nil
		}
		if err == nil {
			err = e.authority.SetServer(csr)
		}
		if err != nil {
			return err
		}
	}
	if known != nil {
		return nil
	}
	return e.secrets().Keep(control.CredentialGateway, key)
}

// gatewayCSR is a request of the key that gatewayKey made; nil: it made none.
func (e *engine) gatewayCSR() ([]byte, error) {
	if e.Gateway == nil || e.Gateway.RemoteAddress == "" || e.Gateway.RemoteKey != "" {
		return nil, nil
	}
	key, err := e.credential(control.CredentialGateway)
	if err != nil || key == nil {
		return nil, err
	}
	return authority.NewRequest(key)
}

// secrets is where the keys of remote access are.
func (e *engine) secrets() control.Secrets {
	return control.Secrets{Sealed: e.sealed(), Folder: e.StateDir, Gateway: e.gatewayCSR, Tokens: e.unlockTokens, Keep: func(name string, content []byte) error {
		path := filepath.Join(e.StateDir, name)
		err := durable.Replace(path, path+".new", content, 0o600)
		if err == nil && name == control.CredentialAuthority {
			_ = os.Remove(filepath.Join(e.StateDir, control.CredentialNextAuthority)) // the same key, where it is
		}
		return err
	}}
}

// credential reads a key that is kept: systemd's credential of that name, otherwise the file of the engine's own. No content: there is
// none.
func (e *engine) credential(name string) ([]byte, error) {
	dirs := []string{e.StateDir}
	if e.CredentialsDir != "" {
		dirs = []string{e.CredentialsDir, e.StateDir}
	}
	for _, dir := range dirs {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if !errors.Is(err, fs.ErrNotExist) {
			return content, err
		}
	}
	return nil, nil
}

// openAuthority opens the authority and unlocks it, if there is one. Without its key the engine runs all the same: certificates are
// verified, and none are made.
func (e *engine) openAuthority() error {
	var err error
	if e.authority, err = authority.Open(e.StateDir, e.Logger); err != nil {
		return err
	}
	e.authority.Changed(e.trustChanged)
	if exists, _ := e.authority.Exists(); exists {
		if err := e.unlock(); err != nil {
			e.Logger.Error("no certificates can be made", "error", err)
		}
	}
	e.configureAuthority(e.settings.orDefaults())
	e.metrics.observeCertificates(e.certificateEnds)
	if e.Gateway != nil && e.Gateway.RemoteAddress != "" && e.Gateway.RemoteKey == "" {
		if err := e.gatewayKey(); err != nil {
			return fmt.Errorf("cannot give the gateway a key for remote clients: %w", err)
		}
	}
	return nil
}

// unlock gives the authority its key. The next one is there only if an engine ended while the authority was rotated.
func (e *engine) unlock() error {
	failed := authority.ErrLocked
	for _, name := range []string{control.CredentialAuthority, control.CredentialNextAuthority} {
		key, err := e.credential(name)
		if err == nil && key == nil {
			continue
		}
		if err == nil {
			err = e.authority.Unlock(key)
		}
		if err == nil && name == control.CredentialNextAuthority {
			err = e.secrets().Keep(control.CredentialAuthority, key)
		}
		if err == nil {
			return nil
		}
		failed = fmt.Errorf("%s: %w", name, err)
	}
	return failed
}

// configureAuthority puts what the configuration says of certificates in force.
func (e *engine) configureAuthority(c *config.Config) {
	s := authority.Settings{
		CRLFiles: c.Remote.CRLFiles, WarnStale: c.Remote.StaleCRL == config.StaleCRLWarn,
		UserLife: c.Authority.UserLifetime, MachineLife: c.Authority.MachineLifetime, RenewExpired: c.Authority.RenewExpired,
		ServerNames: serverNames(c),
	}
	missing := false
	var problems []string
	for _, of := range c.Remote.Authorities {
		if of == config.OwnAuthority {
			s.Own = true
			continue
		}
		roots, err := e.settings.machine.ReadTrusted(of)
		if err != nil { // a warning of the configuration says so, too
			missing = true
			continue
		}
		if err := authority.CheckRoots(append(slices.Clip(s.Roots), roots)...); err != nil {
			problems = append(problems, of+": "+err.Error())
			continue
		}
		s.Roots = append(s.Roots, roots)
	}
	problem := strings.Join(problems, "; ")
	if before := e.rootsProblem.Swap(&problem); problem != "" && (before == nil || *before != problem) {
		e.Logger.Error("certificates of these authorities are refused", "error", problem)
	}
	e.rootsMissing.Store(missing || problem != "")
	if err := e.authority.Configure(s); err != nil { // never: all roots were checked
		e.Logger.Error("cannot use the authorities of the configuration", "error", err)
	}
}

// serverNames are the names of the gateway's certificate: that of remote.url, and those by which a tunnel on this machine is called.
func serverNames(c *config.Config) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	host, _ := os.Hostname() // without one, the others stay
	if u, err := url.Parse(c.RemoteURL(host)); err == nil {
		host = u.Hostname()
	}
	switch ip := net.ParseIP(host); {
	case host == "" || host == "localhost" || ip != nil && ip.IsLoopback():
		return names
	default:
		return append([]string{host}, names...)
	}
}

// trustChanged makes what the gateway is told of certificates.
func (e *engine) trustChanged() {
	if e.control != nil {
		e.control.Recheck() // before the gateway closes the connections of these calls, without a word
	}
	e.trusting.Lock()
	defer e.trusting.Unlock()
	t := e.authority.Trust()
	m := &rtaskv1.Trust{On: len(t.Roots) > 0}
	if m.On {
		for _, c := range t.Roots {
			m.Authorities = append(m.Authorities, c.Raw)
		}
		of := map[[32]byte]*rtaskv1.RevokedCertificates{}
		for _, r := range t.Revoked {
			if of[r.Issuer] == nil {
				of[r.Issuer] = &rtaskv1.RevokedCertificates{Issuer: r.Issuer[:]}
				m.Revoked = append(m.Revoked, of[r.Issuer])
			}
			of[r.Issuer].Serials = append(of[r.Issuer].Serials, []byte(r.Serial))
		}
		for _, c := range t.Server {
			m.ServerChain = append(m.ServerChain, c.Raw)
		}
	}
	e.trust.Store(m)
	if e.control != nil {
		e.control.Changed()
	}
}

// certificateEnds are when the certificates end that all remote clients depend on.
func (e *engine) certificateEnds() map[string]time.Time {
	ends := map[string]time.Time{}
	if all := e.authority.Certificates(); len(all) > 0 {
		ends["authority"] = all[0].NotAfter
	}
	if all := e.authority.Trust().Server; len(all) > 0 {
		ends["server"] = all[0].NotAfter
	}
	return ends
}

// remoteURL is how clients on other machines call this engine, and who issues its tokens.
func (e *engine) remoteURL() string {
	return remoteURL(e.settings.orDefaults())
}

// remoteURL is how clients call the remote API under a configuration.
func remoteURL(c *config.Config) string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	return c.RemoteURL(host)
}

// enroller answers clients without a certificate.
func (e *engine) enroller() *issuer.Enroller {
	return &issuer.Enroller{
		Authority: e.authority,
		URL:       e.remoteURL,
		Logins:    e.providers,
		Providers: func() []issuer.Provider {
			var all []issuer.Provider
			for _, p := range e.settings.orDefaults().Providers {
				all = append(all, issuer.Provider{
					Name: p.Name, Issuer: p.Issuer, ClientID: p.ClientID, Audience: p.WantedAudience(), Scopes: p.Scopes, Login: p.Login, DeviceURL: p.DeviceAuthorizationURL,
				})
			}
			return all
		},
	}
}

// tick has the authority look at what time has brought, until ctx ends.
func (e *engine) tick(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	ticks := t.C
	if e.ticks != nil {
		ticks = e.ticks
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		if e.rootsMissing.Load() {
			e.configureAuthority(e.settings.orDefaults())
		}
		e.authority.Tick()
		e.control.Recheck()
	}
}
