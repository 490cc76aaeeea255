// Package authority is rtask's own certificate authority, and what is known of others': it makes client certificates for those who
// have shown who they are (a join token, a device that an administrator approved, an identity that an outside provider vouches for, a
// certificate that is to be renewed), says of a client certificate whose it is and whether it is still good, and revokes.
//
// It is for certificates (RFC 5280) and nothing else: tokens are made in daemon/auth/token, requests come from daemon/issuer and
// daemon/control, and what an identity may do is configured. It opens no connection, starts nothing, and serves nothing; it reads the
// files of CRLs that it is given. daemon, daemon/control and daemon/issuer import it.
package authority

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// databaseName is the file in the engine's state folder.
	databaseName = "authority.db"
	// crlEvery is how often a CRL is made if nothing is revoked, and crlLife how long it is good (nextUpdate).
	crlEvery, crlLife = 6 * time.Hour, 24 * time.Hour
	// skew is how far back a certificate begins, for clients whose clock is behind.
	skew = 5 * time.Minute
)

// Settings are what the configuration says.
type Settings struct {
	// Own says that client certificates of this authority are good: "rtask" among the authorities.
	Own bool
	// Roots are other authorities whose client certificates are good, in PEM: each may have several certificates.
	Roots [][]byte
	// CRLFiles are the paths of their revocation lists, DER or PEM.
	CRLFiles []string
	// WarnStale takes certificates of which the revocation list is too old; otherwise they are refused.
	WarnStale bool
	// UserLife, MachineLife and HostLife are how long certificates are good. 0: 16 hours, 30 days, 90 days.
	UserLife, MachineLife, HostLife time.Duration
	// RenewExpired is how long after its end a machine's certificate may be renewed by its key. 0: not at all.
	RenewExpired time.Duration
	// ServerNames are the names and addresses by which clients reach the gateway: those of its certificate.
	ServerNames []string
}

// withDefaults fills in what is not said.
func (s Settings) withDefaults() Settings {
	for _, d := range []struct {
		to *time.Duration
		is time.Duration
	}{{&s.UserLife, 16 * time.Hour}, {&s.MachineLife, 30 * 24 * time.Hour}, {&s.HostLife, 90 * 24 * time.Hour}} {
		if *d.to == 0 {
			*d.to = d.is
		}
	}
	return s
}

// Authority is one. It exists before there is a certificate of its own: until Init it only verifies those of others. It is safe for
// concurrent use.
type Authority struct {
	dir    string
	logger *slog.Logger
	// change is held by what changes the database, from its decision to the end of its commit.
	change sync.Mutex

	mu        sync.RWMutex // guards what follows
	db        *database    // nil: there is no authority of its own yet; who holds change may read it, too
	name      string       // the trust domain
	own       []*generation
	records   map[string]*Enrolment // by serial
	joins     map[joinID]*joinRecord
	server    serverRecord
	settings  Settings
	roots     []*x509.Certificate // of settings
	lists     []*crlFile          // of settings
	listeners []func()

	stuck    atomic.Int32 // questions to file systems that have not answered
	verified verified
	used     usage
	devices  devices
}

// Open reads the authority in the engine's state folder, if there is one. Close must be called.
func Open(dir string, logger *slog.Logger) (*Authority, error) {
	a := &Authority{dir: dir, logger: logger, settings: Settings{Own: true, RenewExpired: 72 * time.Hour}.withDefaults(), records: map[string]*Enrolment{}, joins: map[joinID]*joinRecord{}}
	path := filepath.Join(dir, databaseName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	db, err := openDatabase(path)
	if err != nil {
		return nil, err
	}
	if err := a.load(db); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read %s: %w", path, err), db.close())
	}
	return a, nil
}

// load fills a with what is in a database. A file in which no authority was made, since Init broke off, is none.
func (a *Authority) load(db *database) error {
	s, err := db.read()
	if err != nil {
		return err
	}
	a.db, a.name, a.own, a.server = db, s.name, s.generations, s.server
	for i := range s.enrolments {
		a.records[s.enrolments[i].Serial] = &s.enrolments[i]
	}
	for i := range s.joins {
		a.joins[s.joins[i].id()] = &s.joins[i]
	}
	return nil
}

// Close writes what is still to be written, and closes the database.
func (a *Authority) Close() error {
	a.change.Lock()
	defer a.change.Unlock()
	err := a.flushUsed()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.db == nil {
		return err
	}
	err = errors.Join(err, a.db.close())
	a.db, a.own = nil, nil
	return err
}

// Configure puts settings in force. With an error, which names what is wrong with Roots, they stay as they were. A revocation list that
// cannot be read is no error: what depends on it is refused until it can be read.
func (a *Authority) Configure(s Settings) error {
	roots, err := parseRoots(s.Roots)
	if err != nil {
		return err
	}
	a.change.Lock()
	a.mu.Lock()
	a.settings, a.roots = s.withDefaults(), roots
	a.lists = listFiles(a.lists, s.CRLFiles)
	a.mu.Unlock()
	a.readLists(true)
	a.renewServer()
	a.change.Unlock()
	a.tell()
	return nil
}

// Changed has f called whenever Trust changes: at once after Configure, Init, Unlock, Rotate and Revoke, before they return.
func (a *Authority) Changed(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners = append(a.listeners, f)
}

// tell forgets what was verified, and tells the listeners.
func (a *Authority) tell() {
	a.verified.forget()
	a.mu.RLock()
	all := a.listeners
	a.mu.RUnlock()
	for _, f := range all {
		f()
	}
}

// Trust is what the gateway needs for a handshake.
type Trust struct {
	// Roots are the authorities whose client certificates are good. Empty: no client can be let in.
	Roots []*x509.Certificate
	// Revoked are certificates that are not good any more, as far as is known, the own ones first.
	Revoked []Revoked
	// Server is the gateway's own certificate and its authority's; empty: there is none.
	Server []*x509.Certificate
}

// Revoked is a revoked certificate.
type Revoked struct {
	// Issuer is the SHA-256 of the public key (SubjectPublicKeyInfo) of the certificate's issuer.
	Issuer [32]byte
	// Serial is the certificate's number, big-endian, without leading zeros.
	Serial string
}

// maxRevoked is how many certificates of other authorities Trust names. The engine looks at all of them, at each call.
const maxRevoked = 4096

// Trust returns what holds now.
func (a *Authority) Trust() Trust {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var t Trust
	if a.settings.Own {
		for _, g := range a.own {
			t.Roots = append(t.Roots, g.cert)
		}
	}
	t.Roots = append(t.Roots, a.roots...)
	now := time.Now()
	for _, e := range a.records {
		if !e.Revoked.IsZero() && e.Until.After(now) {
			t.Revoked = append(t.Revoked, Revoked{e.Issuer, string(e.number())})
		}
	}
	most := len(t.Revoked) + maxRevoked
	for _, l := range a.lists {
		for issuer, serials := range l.verified {
			for serial := range serials {
				if len(t.Revoked) < most {
					t.Revoked = append(t.Revoked, Revoked{issuer, serial})
				}
			}
		}
	}
	if c := a.server.chain(a.own); c != nil {
		t.Server = c
	}
	return t
}

// Tick does what time brings: it looks at the files of revocation lists, makes CRLs and the gateway's certificate anew, and forgets
// what is over. The engine calls it once a minute.
func (a *Authority) Tick() {
	a.change.Lock()
	changed := a.readLists(false)
	changed = a.sweep() || changed
	changed = a.renewServer() || changed // after sweep: the authority that has signed it may be gone
	a.makeLists(false)
	if err := a.flushUsed(); err != nil {
		a.logger.Error("cannot write when certificates were used", "error", err)
	}
	a.change.Unlock()
	a.devices.sweep()
	if changed {
		a.tell()
	}
}

// Name is the trust domain, "" until Init.
func (a *Authority) Name() string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.name
}

// Exists reports whether there is an authority of its own, and whether its key is there, so that it can issue.
func (a *Authority) Exists() (exists, unlocked bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.own) > 0, len(a.own) > 0 && a.own[0].signer != nil
}
