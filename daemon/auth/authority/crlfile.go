package authority

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"
)

const (
	// maxCRLFile is how many bytes a file of a revocation list has at most, and maxRoots how many certificates all authorities.
	maxCRLFile, maxRoots = 8 << 20, 256
	// patience is how long a file system may take to answer, and maxStuck how many questions may wait for such an answer.
	patience, maxStuck = 2 * time.Second, 4
)

// crlFile is a file with a revocation list of another authority. The list that was read last stays until the file has another one that
// can be read and is not the wrong one (see foreign).
type crlFile struct {
	path  string
	stamp fileStamp
	list  *x509.RevocationList // nil: none could be read
	err   error                // of the last reading
	// serials are those that list has, and verified the same by the authorities that have signed it.
	serials  map[string]bool
	verified map[[32]byte]map[string]bool
}

// fileStamp tells one version of a file from another.
type fileStamp struct {
	dev, ino           uint64
	ctime, mtime, size int64
}

// CheckRoots returns an error for what cannot be Settings.Roots.
func CheckRoots(all ...[]byte) error {
	_, err := parseRoots(all)
	return err
}

// parseRoots reads the certificates of other authorities.
func parseRoots(all [][]byte) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for _, text := range all {
		n := 0
		for rest := text; ; n++ {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type != "CERTIFICATE" {
				return nil, fmt.Errorf("an authority's file has a block %.40q: it has to have certificates only", block.Type)
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("cannot read the certificate of an authority: %w", err)
			}
			if !c.IsCA || !c.BasicConstraintsValid {
				return nil, fmt.Errorf("the certificate of %s is not an authority's (basic constraints)", c.Subject)
			}
			if err := checkStrength(c); err != nil {
				return nil, err
			}
			if roots = append(roots, c); len(roots) > maxRoots {
				return nil, fmt.Errorf("the authorities have more than %d certificates", maxRoots)
			}
		}
		if n == 0 {
			return nil, errors.New("an authority's file has no certificate in PEM")
		}
	}
	return roots, nil
}

// listFiles returns the files of paths: those that are there already, with what was read of them, and new ones.
func listFiles(now []*crlFile, paths []string) []*crlFile {
	var all []*crlFile
	for _, p := range paths {
		if slices.ContainsFunc(all, func(l *crlFile) bool { return l.path == p }) {
			continue
		}
		if i := slices.IndexFunc(now, func(l *crlFile) bool { return l.path == p }); i >= 0 {
			all = append(all, now[i])
		} else {
			all = append(all, &crlFile{path: p})
		}
	}
	return all
}

// readLists reads the files of revocation lists that have changed, and reports whether one had. a.change is held.
//
// A file may be on a file system that never answers: after patience it counts as one that cannot be read.
func (a *Authority) readLists(again bool) bool {
	a.mu.RLock()
	files, roots := a.lists, a.roots
	a.mu.RUnlock()
	changed := false
	for _, l := range files {
		before := *l
		if again && errors.Is(l.err, errUnsigned) {
			before.stamp = fileStamp{} // the authorities are others now, and one of them may have signed it
		}
		next, read := a.within(&before)
		if !read && !again {
			continue
		}
		next.check(roots)
		if before.check(roots); next.foreign(&before) {
			before.stamp, before.err = next.stamp, errUnsigned
			next = before
		}
		if read {
			switch {
			case next.err != nil:
				a.logger.Warn("cannot use a list of revoked certificates", "file", l.path, "error", next.err)
			case len(next.verified) == 0: // a list of an intermediate authority, or the wrong one
				a.logger.Warn("no authority of the configuration has signed a list of revoked certificates", "file", l.path, "issuer", next.list.Issuer)
			case time.Now().After(next.list.NextUpdate):
				a.logger.Warn("a list of revoked certificates is too old", "file", l.path, "next_update", next.list.NextUpdate)
			}
		}
		a.mu.Lock()
		*l = next
		a.mu.Unlock()
		changed = true
	}
	return changed
}

// within reads a file, if its file system answers in time. While maxStuck do not, no more are asked.
func (a *Authority) within(l *crlFile) (crlFile, bool) {
	type answer struct {
		next crlFile
		read bool
	}
	late := func() (crlFile, bool) {
		next := *l
		next.err = errLate
		return next, !errors.Is(l.err, errLate)
	}
	if a.stuck.Load() >= maxStuck {
		return late()
	}
	answers, before := make(chan answer, 1), *l
	a.stuck.Add(1)
	go func() { // which ends with the answer
		defer a.stuck.Add(-1)
		next, read := before.read()
		answers <- answer{next, read}
	}()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case got := <-answers:
		return got.next, got.read
	case <-t.C:
		return late()
	}
}

// errLate is the error of a file system that does not answer.
var errLate = fmt.Errorf("its file system has not answered within %s", patience)

// read returns the file as it is now, and whether it has changed.
func (l *crlFile) read() (crlFile, bool) {
	next := *l
	content, stamp, err := readFile(l.path, l.stamp)
	if err == nil && content == nil {
		return next, false
	}
	next.stamp = stamp
	if err != nil {
		again := l.err != nil && l.err.Error() == err.Error()
		next.err = err
		return next, !again
	}
	list, err := parseList(content)
	if next.err = err; err != nil {
		return next, true
	}
	next.list, next.serials = list, make(map[string]bool, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		next.serials[numberOf(e.SerialNumber)] = true
	}
	return next, true
}

// readFile reads a file unless it is still the same: then its content is nil.
func readFile(path string, known fileStamp) ([]byte, fileStamp, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0) // opening a FIFO must not wait
	if err != nil {
		return nil, fileStamp{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fileStamp{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return nil, fileStamp{}, fmt.Errorf("%s is not a regular file", path)
	}
	stamp := fileStamp{dev: uint64(st.Dev), ino: st.Ino, ctime: st.Ctim.Nano(), mtime: st.Mtim.Nano(), size: st.Size}
	if stamp == known {
		return nil, stamp, nil
	}
	content, err := io.ReadAll(io.LimitReader(f, maxCRLFile+1))
	switch {
	case err != nil:
		return nil, fileStamp{}, err
	case len(content) > maxCRLFile:
		return nil, fileStamp{}, fmt.Errorf("%s is larger than %d bytes", path, maxCRLFile)
	case content == nil:
		content = []byte{}
	}
	return content, stamp, nil
}

// parseList reads a revocation list, DER or PEM. One that is not about all certificates of its issuer is an error (RFC 5280, section
// 5.2): nobody could say of a certificate that it was not revoked.
func parseList(content []byte) (*x509.RevocationList, error) {
	if block, rest := pem.Decode(content); block != nil {
		if block.Type != "X509 CRL" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("it is not one block X509 CRL in PEM")
		}
		content = block.Bytes
	}
	list, err := x509.ParseRevocationList(content)
	if err != nil || len(list.Raw) != len(content) {
		return nil, errors.New("it is not a list of revoked certificates in PEM or DER")
	}
	for _, e := range list.Extensions {
		if e.Critical && !e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 35}) { // authorityKeyIdentifier
			return nil, fmt.Errorf("it is about some certificates only, or has another critical extension that is not known here: %s", e.Id)
		}
	}
	for _, r := range list.RevokedCertificateEntries {
		for _, e := range r.Extensions {
			if e.Critical {
				return nil, fmt.Errorf("an entry has a critical extension that is not known here: %s", e.Id)
			}
		}
	}
	if list.NextUpdate.IsZero() {
		return nil, errors.New("it does not say until when it is good (nextUpdate)")
	}
	return list, nil
}

// check finds out which of the authorities has signed the list.
func (l *crlFile) check(roots []*x509.Certificate) {
	l.verified = map[[32]byte]map[string]bool{}
	for _, r := range roots {
		if l.signedBy(r) {
			l.verified[issuerOf(r)] = l.serials
		}
	}
}

// errUnsigned is the error of a list that cannot take the place of the last one.
var errUnsigned = errors.New("no authority here has signed it; the last list stays")

// foreign reports whether the list is the wrong file for the path: of an issuer other than the last list's, and no authority here has
// signed it, but the last one. Without the last list, what that authority has revoked would be good again. Both were checked.
func (l *crlFile) foreign(last *crlFile) bool {
	return l.list != nil && last.list != nil && len(l.verified) == 0 && len(last.verified) > 0 && !bytes.Equal(l.list.RawIssuer, last.list.RawIssuer)
}

// signedBy reports whether an authority has signed the list.
func (l *crlFile) signedBy(authority *x509.Certificate) bool {
	return l.list != nil && bytes.Equal(l.list.RawIssuer, authority.RawSubject) && l.list.CheckSignatureFrom(authority) == nil
}

// notRevoked returns an error for a way on which a certificate was revoked, or of which that is not known though it should be. Otherwise
// it returns until when that is known, zero: for ever. a.mu is held.
func (a *Authority) notRevoked(way []*x509.Certificate, now time.Time) (until time.Time, err error) {
	for i, c := range way[:len(way)-1] {
		issuer := way[i+1]
		named, verified := false, false
		for _, l := range a.lists {
			if l.list == nil || !l.verifiedFor(issuer) {
				named = named || l.list != nil && bytes.Equal(l.list.RawIssuer, issuer.RawSubject)
				continue
			}
			verified = true
			stale := now.After(l.list.NextUpdate)
			switch {
			case l.serials[numberOf(c.SerialNumber)]:
				return until, refuse(KindRevoked, "the certificate was revoked by its authority")
			case stale && !a.settings.WarnStale:
				return until, refuse(KindStaleCRL, "whether the certificate was revoked is not known: the list of its authority ended on %s", l.list.NextUpdate.UTC().Format(time.RFC3339))
			case !stale && !a.settings.WarnStale && (until.IsZero() || l.list.NextUpdate.Before(until)):
				until = l.list.NextUpdate
			}
		}
		if named && !verified && !a.settings.WarnStale {
			return until, refuse(KindStaleCRL, "whether the certificate was revoked is not known: the list here of an authority of that name has another signature")
		}
	}
	for _, l := range a.lists {
		if l.list == nil && !a.settings.WarnStale {
			return until, refuse(KindStaleCRL, "whether the certificate was revoked is not known: a list of revoked certificates cannot be read here")
		}
	}
	return until, nil
}

// verifiedFor reports whether an authority, which may be one that a client showed, has signed the list.
func (l *crlFile) verifiedFor(authority *x509.Certificate) bool {
	_, ok := l.verified[issuerOf(authority)]
	return ok || l.signedBy(authority)
}
