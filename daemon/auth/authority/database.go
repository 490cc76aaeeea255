package authority

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"

	"github.com/rtask/rtask/sandbox/durable"
)

const (
	// lockTimeout is how long openDatabase waits for another process to let go of the file: a restart's old process.
	lockTimeout = 5 * time.Second
	// layout is the version of the buckets below.
	layout = 1
)

// bucket is the name of a bucket. Values are CBOR.
type bucket string

const (
	bucketMeta       bucket = "meta"       // names → values
	bucketOwn        bucket = "own"        // serial of the authority's certificate → ownRecord
	bucketEnrolments bucket = "enrolments" // serial → Enrolment
	bucketJoins      bucket = "joins"      // hash of the secret → joinRecord
)

// The names in bucketMeta.
const (
	metaLayout = "layout"
	metaServer = "server"
)

// Enrolment is what is on record of a client certificate.
type Enrolment struct {
	Serial string
	URI    string
	// Issuer is the SHA-256 of the public key of the authority's certificate, and Key the certificate's own one
	// (SubjectPublicKeyInfo).
	Issuer [32]byte
	Key    []byte
	// Issued and Until are the certificate's; LastUsed is zero while it was not used.
	Issued, Until, LastUsed time.Time
	// Revoked is zero unless it was revoked, by RevokedBy.
	Revoked   time.Time
	RevokedBy string
	// RenewedBy is the serial of the certificate that came after it; "": none did.
	RenewedBy string
	Grant     Grant
}

// State is "good", "expired", "revoked" or "renewed"; one that was renewed is good until its end all the same.
func (e *Enrolment) State(now time.Time) string {
	switch {
	case !e.Revoked.IsZero():
		return "revoked"
	case e.RenewedBy != "":
		return "renewed"
	case !e.Until.After(now):
		return "expired"
	default:
		return "good"
	}
}

// live reports whether the certificate can be used.
func (e *Enrolment) live(now time.Time) bool { return e.Revoked.IsZero() && e.Until.After(now) }

// number is the serial as bytes.
func (e *Enrolment) number() []byte { return serialBytes(e.Serial) }

// ownRecord is a certificate of the authority itself.
type ownRecord struct {
	Certificate []byte
	// Order is larger for a newer one: the newest issues.
	Order int64
	// Sealed is the key, encrypted under that of the next one; nil: it is the newest, whose key the engine is given.
	Sealed []byte
	// Number is that of its last CRL.
	Number int64
}

// serverRecord is the gateway's certificate.
type serverRecord struct {
	// Key is the gateway's public key (SubjectPublicKeyInfo); nil: there is none.
	Key []byte
	// Certificate is DER; nil: there is none yet.
	Certificate []byte
}

// database is the file.
type database struct {
	*bbolt.DB
	enc cbor.EncMode
}

// openDatabase opens the file, which it creates with mode 0600 if it is missing.
func openDatabase(path string) (*database, error) {
	enc, err := cbor.EncOptions{Time: cbor.TimeRFC3339NanoUTC}.EncMode()
	if err != nil {
		return nil, fmt.Errorf("cannot set up CBOR: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	d := &database{db, enc}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range []bucket{bucketMeta, bucketOwn, bucketEnrolments, bucketJoins} {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		meta := tx.Bucket([]byte(bucketMeta))
		if is := meta.Get([]byte(metaLayout)); is != nil && !bytes.Equal(is, []byte{layout}) {
			return fmt.Errorf("its layout is %d, and this rtaskd knows %d", is, layout)
		}
		return meta.Put([]byte(metaLayout), []byte{layout})
	})
	if err = errors.Join(err, durable.SyncFolder(filepath.Dir(path))); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open %s: %w", path, err), db.Close())
	}
	return d, nil
}

func (d *database) close() error { return d.Close() }

// put is a value to be written at a key; nil: what is there is removed.
type put struct {
	in    bucket
	key   []byte
	value any
}

// commit writes all of them or none, and returns when they are on disk.
func (d *database) commit(all ...put) error {
	err := d.Update(func(tx *bbolt.Tx) error {
		for _, p := range all {
			b := tx.Bucket([]byte(p.in))
			if p.value == nil {
				if err := b.Delete(p.key); err != nil {
					return err
				}
				continue
			}
			value, err := d.enc.Marshal(p.value)
			if err == nil {
				err = b.Put(p.key, value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot write the authority's records: %w", err)
	}
	return nil
}

// replace writes records of certificates that are new or have changed, together with whatever else, and puts them in force. a.change is
// held.
func (a *Authority) replace(changed []*Enrolment, also ...put) error {
	for _, e := range changed {
		also = append(also, put{bucketEnrolments, e.number(), e})
	}
	if len(also) == 0 {
		return nil
	}
	if err := a.db.commit(also...); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range changed {
		a.records[e.Serial] = e
	}
	return nil
}

func putJoin(j *joinRecord) put { return put{bucketJoins, j.Hash[:], j} }

func (g *generation) put() put { return put{bucketOwn, g.cert.SerialNumber.Bytes(), &g.record} }

func putServer(s serverRecord) put { return put{bucketMeta, []byte(metaServer), s} }

// stored is all that is in the file.
type stored struct {
	name        string
	generations []*generation // the newest first
	enrolments  []Enrolment
	joins       []joinRecord
	server      serverRecord
}

func (d *database) read() (stored, error) {
	var s stored
	err := d.View(func(tx *bbolt.Tx) error {
		err := each(tx, bucketOwn, func(r ownRecord) error {
			cert, err := x509.ParseCertificate(r.Certificate)
			if err != nil {
				return err
			}
			s.generations = append(s.generations, newGeneration(cert, r))
			return nil
		})
		if err != nil {
			return err
		}
		if err := each(tx, bucketEnrolments, func(e Enrolment) error { s.enrolments = append(s.enrolments, e); return nil }); err != nil {
			return err
		}
		if err := each(tx, bucketJoins, func(j joinRecord) error { s.joins = append(s.joins, j); return nil }); err != nil {
			return err
		}
		if v := tx.Bucket([]byte(bucketMeta)).Get([]byte(metaServer)); v != nil {
			return cbor.Unmarshal(v, &s.server)
		}
		return nil
	})
	slices.SortFunc(s.generations, func(a, b *generation) int { return cmp.Compare(b.record.Order, a.record.Order) })
	if len(s.generations) > 0 {
		s.name = s.generations[0].cert.Subject.CommonName
	}
	return s, err
}

// each decodes every value of a bucket.
func each[T any](tx *bbolt.Tx, in bucket, f func(T) error) error {
	return tx.Bucket([]byte(in)).ForEach(func(k, v []byte) error {
		var value T
		if err := cbor.Unmarshal(v, &value); err != nil {
			return fmt.Errorf("%s %x: %w", in, k, err)
		}
		return f(value)
	})
}
