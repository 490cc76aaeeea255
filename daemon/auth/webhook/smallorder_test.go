package webhook

import (
	"crypto/ed25519"
	"encoding/hex"
	"testing"
)

// Under each key that is no secret, with either sign of x, a signature that is none is good, and under no other one.
func TestSmallOrder(t *testing.T) {
	forged := func(key ed25519.PublicKey) bool {
		none := make([]byte, ed25519.SignatureSize)
		none[0] = 1 // the neutral point, and zero
		for i := range byte(255) {
			if ed25519.Verify(key, []byte{i}, none) {
				return true
			}
		}
		return false
	}
	found := 0
	for _, text := range smallOrder {
		for _, sign := range []byte{0, 0x80} {
			key, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			if key[31] |= sign; forged(key) {
				found++
			}
			if !signsForAll(key) || CheckSecret(Discord, hex.EncodeToString(key)) == nil {
				t.Errorf("%x is taken", key)
			}
		}
	}
	if found != 2*len(smallOrder) {
		t.Errorf("%d of the keys sign for all", found)
	}
	// Numbers beyond the field's, of which there are 19, and small ones.
	for i := range byte(40) {
		for _, key := range []ed25519.PublicKey{append([]byte{i}, make([]byte, 31)...), append([]byte{0xec + i%20}, unhex("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")...)} {
			if forged(key) != signsForAll(key) {
				t.Errorf("%x: %v", key, signsForAll(key))
			}
		}
	}
}
