package contexts

import (
	"os"
	"path/filepath"
	"testing"
)

// TestHold checks that the lock of a folder which was replaced meanwhile counts for nothing: the next process takes that of the new one.
func TestHold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "build")
	open := func() *os.File {
		t.Helper()
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	old := open()
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if held, err := hold(old, dir); held || err != nil {
		t.Errorf("without a folder at its path: %v, %v", held, err)
	}
	now := open()
	if held, err := hold(old, dir); held || err != nil {
		t.Errorf("with another folder at its path: %v, %v", held, err)
	}
	if held, err := hold(now, dir); !held || err != nil {
		t.Errorf("the folder of that path: %v, %v", held, err)
	}
	again, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if held, err := hold(again, dir); held || err != nil {
		t.Errorf("locked already: %v, %v", held, err)
	}
}
