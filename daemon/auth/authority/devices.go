package authority

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/rtask/rtask/daemon/origin"
)

const (
	// userLetters are those of a user code: no vowels, so no words, and none that look alike (RFC 8628, section 6.1). 8 of them are
	// 34.5 bits.
	userLetters, userLen = "BCDFGHJKLMNPQRSTVWXZ", 8
	// deviceLife is how long a code waits for an administrator, and pollEvery how often its client asks, in the beginning.
	deviceLife, pollEvery = 10 * time.Minute, 5 * time.Second
	// maxDevices is how many wait at a time: of all, of one network, of one client (see package origin). For one more of all, another
	// one gives way.
	maxDevices, devicesOfNetwork, devicesOfClient = 256, 32, 4
)

// Device is a client that has no certificate and asks for one; an administrator decides (RFC 8628).
type Device struct {
	// UserCode is what its user tells the administrator, XXXX-XXXX.
	UserCode string
	// Name is what it wants to be called.
	Name string
	// Fingerprint is that of its key: SHA256: and the base64 of the SHA-256, as ssh-keygen(1) has it.
	Fingerprint string
	Remote      string
	Until       time.Time
	// Decision is "", "approved" or "denied".
	Decision string
}

// DeviceStart is the answer to a client that asks.
type DeviceStart struct {
	DeviceCode, UserCode string
	Life, Interval       time.Duration
}

// device is one that waits, or that was decided on and not fetched yet.
type device struct {
	Device
	request  Request
	grant    Grant
	interval time.Duration
	polled   time.Time
	issued   *Issued
	client   netip.Prefix
	network  netip.Prefix
}

// devices are those that wait. They are in memory alone: who waits asks again after a restart.
type devices struct {
	mu sync.Mutex // guards of
	of map[joinID]*device
}

// StartDevice takes the request of a device. Its errors are a *Refusal, of KindSlowDown if too many wait.
func (a *Authority) StartDevice(csr []byte, name, remote string) (DeviceStart, error) {
	if exists, _ := a.Exists(); !exists {
		return DeviceStart{}, ErrNone
	}
	if CheckName(name) != nil {
		return DeviceStart{}, refuse(KindBadRequest, "the name is not 1 to %d letters, digits and .-_, beginning with a letter or a digit", maxName)
	}
	address, _ := netip.ParseAddr(remote)
	d := &device{interval: pollEvery, client: origin.Client(address), network: origin.Network(address)}
	if err := a.devices.room(d); err != nil {
		return DeviceStart{}, err
	}
	var err error
	if d.request, err = ParseRequest(csr); err != nil {
		return DeviceStart{}, err
	}
	d.Device = Device{Name: name, Fingerprint: Fingerprint(d.request.Key), Remote: remote[:min(len(remote), maxText)], Until: time.Now().Add(deviceLife)}
	var code [32]byte
	_, _ = rand.Read(code[:]) // never fails (crypto/rand)
	text := base64.RawURLEncoding.EncodeToString(code[:])
	if err := a.devices.add(sha256.Sum256([]byte(text)), d); err != nil {
		return DeviceStart{}, err
	}
	return DeviceStart{DeviceCode: text, UserCode: d.UserCode, Life: deviceLife, Interval: pollEvery}, nil
}

// Fingerprint is how people compare a public key (SubjectPublicKeyInfo): SHA-256 in base64, as ssh-keygen(1) has it.
func Fingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// room returns an error if there is none for one more of a client.
func (ds *devices) room(d *device) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	_, _, err := ds.full(d)
	return err
}

// full is room, and has the one that would give way, if one must. ds.mu is held.
func (ds *devices) full(d *device) (gives joinID, must bool, err error) {
	now := time.Now()
	all, network, client := 0, 0, 0
	for _, o := range ds.of {
		if !o.Until.After(now) {
			continue
		}
		all++
		if o.network == d.network {
			network++
		}
		if o.client == d.client {
			client++
		}
	}
	if must = all >= maxDevices; must {
		gives, err = ds.oldest(now)
	}
	if network >= devicesOfNetwork || client >= devicesOfClient || err != nil {
		return gives, must, refuse(KindSlowDown, "too many devices wait to be approved; try again in some minutes")
	}
	return gives, must, nil
}

// oldest is the device that was not approved and came first, of the network that has most of them: strangers with many addresses take
// places from each other, not from all others. ds.mu is held.
func (ds *devices) oldest(now time.Time) (joinID, error) {
	gives := func(d *device) bool { return d.Decision != "approved" && d.Until.After(now) }
	waiting := map[netip.Prefix]int{}
	for _, d := range ds.of {
		if gives(d) {
			waiting[d.network]++
		}
	}
	var id joinID
	var first *device
	for i, d := range ds.of {
		if !gives(d) {
			continue
		}
		if first == nil || waiting[d.network] > waiting[first.network] || waiting[d.network] == waiting[first.network] && d.Until.Before(first.Until) {
			id, first = i, d
		}
	}
	if first == nil {
		return id, errors.New("all are approved")
	}
	return id, nil
}

func (ds *devices) add(id joinID, d *device) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	gives, must, err := ds.full(d)
	if err != nil {
		return err
	}
	if must {
		delete(ds.of, gives)
	}
	if ds.of == nil {
		ds.of = map[joinID]*device{}
	}
	for d.UserCode == "" || ds.byUserCode(d.UserCode) != nil {
		d.UserCode = newUserCode()
	}
	ds.of[id] = d
	return nil
}

// newUserCode makes a code that all letters are as likely in.
func newUserCode() string {
	var b strings.Builder
	for b.Len() < userLen+1 {
		var one [1]byte
		_, _ = rand.Read(one[:])                     // never fails (crypto/rand)
		if int(one[0]) >= 256-256%len(userLetters) { // or the first letters were more likely
			continue
		}
		if b.Len() == userLen/2 {
			b.WriteByte('-')
		}
		b.WriteByte(userLetters[int(one[0])%len(userLetters)])
	}
	return b.String()
}

// byUserCode finds a device as people type its code: in any case, with or without the hyphen. ds.mu is held.
func (ds *devices) byUserCode(code string) *device {
	plain := func(s string) string { return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(s)) }
	now := time.Now()
	for _, d := range ds.of {
		if plain(d.UserCode) == plain(code) && d.Until.After(now) {
			return d
		}
	}
	return nil
}

// PollDevice answers a device that asks whether it was approved: with its certificate, or a *Refusal of RFC 8628's kinds.
func (a *Authority) PollDevice(code string) (Issued, error) {
	id := joinID(sha256.Sum256([]byte(code)))
	d, err := a.devices.poll(id, time.Now())
	if err != nil {
		return Issued{}, err
	}
	a.change.Lock()
	defer a.change.Unlock()
	switch d, err = a.devices.approved(id); { // again: now nobody else uses it
	case err != nil:
		return Issued{}, err
	case d.issued != nil:
		return *d.issued, nil
	}
	issued, err := a.issue(d.request, d.grant, nil)
	if err != nil {
		return Issued{}, err
	}
	a.devices.mu.Lock()
	defer a.devices.mu.Unlock()
	if o := a.devices.of[id]; o != nil {
		o.issued = &issued // for a client that lost the answer and asks again
	}
	return issued, nil
}

// poll returns a device that was approved.
func (ds *devices) poll(id joinID, now time.Time) (device, error) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d := ds.of[id]
	switch {
	case d == nil:
		return device{}, refuse(KindNoCode, "this device code is not known")
	case !d.Until.After(now):
		return device{}, refuse(KindOver, "nobody approved the code %s in time", d.UserCode)
	case d.Decision == "denied":
		return device{}, refuse(KindDenied, "an administrator denied the code %s", d.UserCode)
	case !d.polled.IsZero() && now.Sub(d.polled) < d.interval:
		d.polled, d.interval = now, d.interval+pollEvery // RFC 8628, section 3.5
		return device{}, refuse(KindSlowDown, "ask every %d seconds", int(d.interval/time.Second))
	}
	d.polled = now
	if d.Decision == "" {
		return device{}, refuse(KindPending, "the code %s waits for an administrator", d.UserCode)
	}
	return *d, nil
}

// approved returns a device that still is.
func (ds *devices) approved(id joinID) (device, error) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d := ds.of[id]
	if d == nil || d.Decision != "approved" {
		return device{}, refuse(KindDenied, "an administrator denied the code")
	}
	return *d, nil
}

// Devices returns those that wait for a decision, in no order.
func (a *Authority) Devices() []Device {
	a.devices.mu.Lock()
	defer a.devices.mu.Unlock()
	now := time.Now()
	var all []Device
	for _, d := range a.devices.of {
		if d.Decision == "" && d.Until.After(now) {
			all = append(all, d.Device)
		}
	}
	return all
}

// Device returns the one that waits with a user code, or ErrNoSuch.
func (a *Authority) Device(code string) (Device, error) {
	a.devices.mu.Lock()
	defer a.devices.mu.Unlock()
	d := a.devices.byUserCode(code)
	if d == nil || d.Decision != "" {
		return Device{}, fmt.Errorf("%w: no device waits with the code %.20q", ErrNoSuch, code)
	}
	return d.Device, nil
}

// Approve lets a device have a certificate of the identity that g names; Name "" is the one that it asked for. The fingerprint is the
// one that the administrator saw.
func (a *Authority) Approve(code, fingerprint string, g Grant) (Device, error) {
	if exists, unlocked := a.Exists(); !exists {
		return Device{}, ErrNone
	} else if !unlocked {
		return Device{}, ErrLocked
	}
	return a.decide(code, func(d *device) error {
		if g.Name == "" {
			g.Name = d.Name
		}
		if fingerprint != "" && fingerprint != d.Fingerprint {
			return fmt.Errorf("%w: another device waits with this code now", ErrNoSuch)
		}
		g.Provider, g.ProviderSubject, g.Proof, g.Remote = "", "", "device", d.Remote
		if err := CheckName(g.Name); err != nil {
			return err
		}
		d.grant, d.Decision = g, "approved"
		return nil
	})
}

// Deny refuses a device.
func (a *Authority) Deny(code string) (Device, error) {
	return a.decide(code, func(d *device) error { d.Decision = "denied"; return nil })
}

func (a *Authority) decide(code string, f func(*device) error) (Device, error) {
	a.devices.mu.Lock()
	defer a.devices.mu.Unlock()
	d := a.devices.byUserCode(code)
	if d == nil || d.Decision != "" {
		return Device{}, fmt.Errorf("%w: no device waits with the code %.20q", ErrNoSuch, code)
	}
	if err := f(d); err != nil {
		return Device{}, err
	}
	return d.Device, nil
}

// approvedAs returns what devices were approved as, of those that can still ask for their certificate.
func (ds *devices) approvedAs() []Grant {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	now := time.Now()
	var all []Grant
	for _, d := range ds.of {
		if d.Decision == "approved" && d.Until.After(now) {
			all = append(all, d.grant)
		}
	}
	return all
}

// forget denies those that were approved as an identity and have not fetched its certificate.
func (ds *devices) forget(identity func(Grant) bool) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, d := range ds.of {
		if d.Decision == "approved" && identity(d.grant) {
			d.Decision, d.issued = "denied", nil
		}
	}
}

// sweep forgets codes that are over for as long again, so that their clients heard so.
func (ds *devices) sweep() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	now := time.Now()
	for id, d := range ds.of {
		if now.After(d.Until.Add(deviceLife)) {
			delete(ds.of, id)
		}
	}
}
