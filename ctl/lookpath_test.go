package ctl

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestLookPath holds lookPath against exec.LookPath, which it stands in for.
func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{
		"one/tool": 0o755, "two/tool": 0o755, "two/other": 0o755, "one/plain": 0o644, "two/plain": 0o755, "here": 0o755,
		"sub/mine": 0o755, "one/bare": 0o644,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range [][2]string{{"two/tool", "one/linked"}, {"nowhere", "one/dangling"}} {
		if err := os.Symlink(filepath.Join(dir, link[0]), filepath.Join(dir, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "one/folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	for _, test := range []struct {
		name, path, want string
		err              error
	}{
		{"tool", one + ":" + two, one + "/tool", nil},
		{"tool", two + ":" + one, two + "/tool", nil},
		{"other", one + ":" + two, two + "/other", nil},
		{"plain", one + ":" + two, two + "/plain", nil},
		{"bare", one + ":" + two, "", fs.ErrNotExist},
		{"folder", one, "", fs.ErrNotExist},
		{"linked", one, one + "/linked", nil},
		{"dangling", one, "", fs.ErrNotExist},
		{"nowhere", one + ":" + two, "", fs.ErrNotExist},
		{"tool", "", "", fs.ErrNotExist},
		{"", one, "", fs.ErrNotExist},
		{".", one, "", fs.ErrNotExist},
		{"..", one, "", fs.ErrNotExist},
		{"here", one + "::" + two, "", errRelative},
		{"here", ".:" + one, "", errRelative},
		{"mine", "sub", "", errRelative},
		{"tool", "two:" + one, "", errRelative},
		{"./here", "", dir + "/here", nil},
		{"sub/mine", "", dir + "/sub/mine", nil},
		{one + "/tool", "", one + "/tool", nil},
		{"one/plain", one, "", fs.ErrPermission},
		{"one/folder", one, "", fs.ErrPermission},
		{"./nowhere", one, "", fs.ErrNotExist},
	} {
		got, err := lookPath(test.name, test.path, dir)
		if !errors.Is(err, test.err) || err == nil && got != test.want {
			t.Errorf("lookPath(%q, %q) = %q, %v; want %q, %v", test.name, test.path, got, err, test.want, test.err)
		}
		t.Setenv("PATH", test.path)
		theirs, theirErr := exec.LookPath(test.name)
		if (err == nil) != (theirErr == nil) || errors.Is(err, errRelative) != errors.Is(theirErr, exec.ErrDot) {
			t.Errorf("lookPath(%q, %q) = %v, exec.LookPath %v", test.name, test.path, err, theirErr)
		}
		if abs, _ := filepath.Abs(theirs); err == nil && abs != got {
			t.Errorf("lookPath(%q, %q) = %q, exec.LookPath %q", test.name, test.path, got, abs)
		}
	}
}
