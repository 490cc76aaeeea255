package contexts_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/ctl/contexts"
	"github.com/rtask/rtask/ctl/keystore"
)

// mine makes files of somebody's own below a folder, and checks at the end of the test that they are still there.
func mine(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, file := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if text, err := os.ReadFile(path); string(text) != "mine" {
				t.Errorf("a file of somebody's own is gone: %v", err)
			}
		})
	}
}

// TestFolderOfSomebody checks that neither a login nor a removal takes away what is somebody's own, where that is in the folder that a
// context is to have.
func TestFolderOfSomebody(t *testing.T) {
	none := func(string) error { return nil }
	refused := func(t *testing.T, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	t.Run("no context's", func(t *testing.T) {
		f := contexts.Folder{Path: t.TempDir()}
		mine(t, f.Dir("prod"), "cert.pem", "notes/one")
		c := contexts.Context{Name: "prod", URL: "https://prod.example.org", CertFile: "/elsewhere/cert.pem"}
		refused(t, f.Check(c), "belongs to no context: move it away")
		refused(t, f.Save(t.Context(), c, contexts.Content{}, none, true), "belongs to no context: move it away")
		if all, _, err := f.All(); len(all) != 0 || err != nil {
			t.Errorf("%v, %v", all, err)
		}
	})
	t.Run("of its certificate", func(t *testing.T) {
		f := contexts.Folder{Path: t.TempDir()}
		if err := f.Save(t.Context(), contexts.Context{Name: "prod", URL: "https://prod.example.org"}, contexts.Content{}, none, true); err != nil {
			t.Fatal(err)
		}
		mine(t, f.Dir("prod"), "cert.pem", "deep/key.pem", "ca.pem")
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(f.Dir("prod"), link); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "cert.pem")
		if err := os.Symlink(filepath.Join(f.Dir("prod"), "cert.pem"), file); err != nil {
			t.Fatal(err)
		}
		for _, c := range []contexts.Context{
			{CertFile: filepath.Join(f.Dir("prod"), "cert.pem")}, {KeyFile: filepath.Join(f.Dir("prod"), "deep", "key.pem")},
			{CAFile: filepath.Join(link, "ca.pem")}, {CertFile: file},
		} {
			c.Name, c.URL = "prod", "https://prod.example.org"
			refused(t, f.Check(c), "move it to another one")
			refused(t, f.Save(t.Context(), c, contexts.Content{}, none, true), "move it to another one")
		}
		// Such a context, of an older rtaskctl, is not removed either.
		list := "[contexts.prod]\nurl = 'https://prod.example.org'\ncert_file = '" + filepath.Join(f.Dir("prod"), "cert.pem") + "'\n"
		if err := os.WriteFile(filepath.Join(f.Path, "contexts.toml"), []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, f.Remove(t.Context(), "prod"), "move it to another one")
	})
	t.Run("of its new name", func(t *testing.T) {
		f := contexts.Folder{Path: t.TempDir()}
		// It has no folder, as where a rename was interrupted.
		list := "[contexts.prod]\nurl = 'https://prod.example.org'\n"
		if err := os.WriteFile(filepath.Join(f.Path, "contexts.toml"), []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		mine(t, f.Dir("other"), "notes/one")
		refused(t, f.Rename(t.Context(), "prod", "other"), "is not rtask's")
		if all, _, err := f.All(); err != nil || len(all) != 1 || all[0].Name != "prod" {
			t.Errorf("%v, %v", all, err)
		}
	})
	t.Run("where a link leads", func(t *testing.T) {
		f := contexts.Folder{Path: t.TempDir()}
		c := contexts.Context{Name: "prod", URL: "https://prod.example.org"}
		elsewhere := filepath.Join(t.TempDir(), "prod")
		linked := func() {
			t.Helper()
			if err := f.Save(t.Context(), c, contexts.Content{}, none, true); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(f.Dir("prod")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(elsewhere, f.Dir("prod")); err != nil {
				t.Fatal(err)
			}
		}
		holds := func(want int) {
			t.Helper()
			if all, err := os.ReadDir(f.Path); err != nil || len(all) != want {
				t.Errorf("in the folder: %v, %v", all, err)
			}
		}
		mine(t, elsewhere, "notes/one")
		linked()
		if err := f.Save(t.Context(), c, contexts.Content{}, none, true); err != nil {
			t.Error(err)
		}
		if fi, err := os.Lstat(f.Dir("prod")); err != nil || !fi.IsDir() {
			t.Errorf("the folder is still a link: %v", err)
		}
		holds(2) // with contexts.toml
		linked()
		refused(t, f.Remove(t.Context(), "prod"), "is not rtask's")
		holds(2)
	})
	t.Run("beside rtask's files", func(t *testing.T) {
		i := newIssuer(t)
		f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
		c := save(t, i, f, "machine/ci-1", time.Hour)
		mine(t, f.Dir("build"), "my.pem", "notes/one")
		before, err := f.Certificate("build")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Credentials(c, keystore.Store{}, nil).Renew(t.Context()); err != nil {
			t.Error(err)
		}
		save(t, i, f, "machine/ci-1", time.Hour)
		refused(t, f.Remove(t.Context(), "build"), "is not rtask's")
		if now, err := f.Certificate("build"); err != nil || now.Leaf.Equal(before.Leaf) {
			t.Errorf("the certificate is not that of the last login: %v", err)
		}
		if all, err := os.ReadDir(f.Path); err != nil || len(all) != 2 {
			t.Errorf("in the folder: %v, %v", all, err)
		}
	})
}

// TestHalfDone checks that the folders are as contexts.toml says where that cannot be written, and that a change which was interrupted before
// that is finished by the next attempt.
func TestHalfDone(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	c := save(t, i, f, "user/admin1", time.Hour)
	next := filepath.Join(f.Path, "contexts.toml.new")
	if err := os.Mkdir(next, 0o700); err != nil { // nothing can be written there now
		t.Fatal(err)
	}
	if err := f.Rename(t.Context(), "build", "other"); err == nil {
		t.Error("renamed without a list")
	}
	other := c
	other.Name = "other"
	if err := f.Save(t.Context(), other, contexts.Content{Certificate: "x"}, func(string) error { return nil }, true); err == nil {
		t.Error("saved without a list")
	}
	if _, err := f.Certificate("build"); err != nil {
		t.Errorf("the context lost its folder: %v", err)
	}
	if _, err := os.Lstat(f.Dir("other")); err == nil {
		t.Error("there is a folder of no context")
	}
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}

	// As a crash leaves it.
	if err := os.Rename(f.Dir("build"), f.Dir("other")); err != nil {
		t.Fatal(err)
	}
	if err := f.Rename(t.Context(), "build", "other"); err != nil {
		t.Error(err)
	}
	if _, current, err := f.All(); err != nil || current != "other" {
		t.Errorf("current is %q, %v", current, err)
	}
	if _, err := f.Certificate("other"); err != nil {
		t.Error(err)
	}
	mine(t, f.Dir("notes"), "one")
	if err := f.Rename(t.Context(), "other", "notes"); err == nil || !strings.Contains(err.Error(), "belongs to no context: move it away") {
		t.Errorf("%v", err)
	}
}
