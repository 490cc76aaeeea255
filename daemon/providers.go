package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/auth/provider/handover"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/sandbox/durable"
)

// openProviders opens what verifies the tokens of outside providers.
func (e *engine) openProviders() {
	var err error
	e.providers, err = provider.Open(provider.Options{
		// The fetcher's folder stands beside the engine's own: that of rtask-provider.service is /var/lib/rtask-provider.
		Fetched: filepath.Clean(e.StateDir) + "-provider",
		Again:   filepath.Join(e.RuntimeDir, handover.AgainName),
		Used:    filepath.Join(e.StateDir, "provider.used"),
		Read:    e.settings.machine.ReadTrusted,
	})
	if err != nil {
		e.Logger.Warn("logins with a provider may fail for a few minutes", "error", err)
	}
}

// configureProviders puts the configured providers in force, and tells the fetcher whose keys are wanted.
func (e *engine) configureProviders(c *config.Config) {
	var all []provider.Settings
	for _, p := range c.Providers {
		all = append(all, provider.Settings{
			Name: p.Name, Issuer: p.Issuer, ClientID: p.ClientID, Audience: p.WantedAudience(), SubjectClaim: p.SubjectClaim, GroupsClaim: p.GroupsClaim,
			Algorithms: p.Algorithms, Session: p.Session, Bound: p.Bound, Nonce: p.ClientID != "" && slices.Equal(p.Login, []string{"browser"}),
			JWKSFile: p.JWKSFile, KeysMaxAge: p.KeysMaxAge, Require: p.Require,
		})
	}
	e.providers.Configure(all)
	if err := e.wantKeys(c); err != nil {
		e.Logger.Error("the keys of providers will not be fetched", "error", err)
	}
}

// wantKeys writes whose keys are to be fetched, if that has changed. Without any there is no file, and the fetcher is not started.
func (e *engine) wantKeys(c *config.Config) error {
	path := filepath.Join(e.RuntimeDir, handover.WantedName)
	var w handover.Wanted
	for _, p := range c.Providers {
		if p.JWKSFile == "" {
			w.Providers = append(w.Providers, handover.Provider{Name: p.Name, Issuer: p.Issuer, CAFile: p.CAFile})
		}
	}
	if len(w.Providers) == 0 {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	if len(text) > handover.MaxWanted {
		return fmt.Errorf("the providers of the configuration take %d bytes, and at most %d are read", len(text), handover.MaxWanted)
	}
	if had, err := os.ReadFile(path); err == nil && bytes.Equal(had, text) {
		return nil
	}
	return durable.Replace(path, path+".new", text, 0o644)
}
