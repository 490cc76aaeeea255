package rtask_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// makers are the calls that make or change something at a path, of packages os, syscall, unix and durable. Those that open take
// O_CREAT for it.
func makers() []string {
	return []string{
		"Chmod", "Chown", "Chtimes", "CopyFS", "Create", "CreateTemp", "Fchmodat", "Fchownat", "Lchown", "Link", "Linkat", "ListenUnix", "Mkdir", "MkdirAll",
		"MkdirTemp", "Mkdirat", "Mkfifo", "Mknod", "Mknodat", "Rename", "Replace", "Renameat", "Renameat2", "Symlink", "Symlinkat", "Truncate", "WriteFile",
	}
}

// openers are the calls that look at what is at a path.
func openers() []string {
	return []string{"EvalSymlinks", "Lstat", "Open", "OpenFile", "OpenTree", "Openat", "Openat2", "ReadDir", "ReadFile", "Readlink", "Stat", "Fstatat", "Readlinkat"}
}

// byPath are the calls of the daemons and shims that make something by a path, and those of the jail and the shim that open one,
// each with the reason why no other user can have a say in where it leads. All others go by package safepath.
func byPath() map[string]string {
	const (
		own     = "a folder of the engine's own"
		made    = "a folder of a file system that was just made, by its descriptor"
		kernel  = "a file system of the kernel's"
		systemd = "the folder that systemd made for its generator"
	)
	return map[string]string{
		"daemon/auth/keysfile.go Create":         own,
		"daemon/auth/keysfile.go Rename":         own,
		"daemon/auth/provider/keys.go WriteFile": own,
		"daemon/auth/provider/used.go Replace":   own,
		"daemon/auth/token/keysfile.go Replace":  own,
		"daemon/daemon.go MkdirAll":              own,
		"daemon/deliveries/store.go MkdirAll":    own,
		"daemon/deliveries/store.go Rename":      own,
		"daemon/deliveries/store.go WriteFile":   own,
		"daemon/job/input.go Create":             own,
		"daemon/job/launch.go OpenFile":          own,
		"daemon/job/options.go MkdirAll":         own,
		"daemon/kept.go Replace":                 own,
		"daemon/listen.go Lchown":                own,
		"daemon/providers.go Replace":            own,
		"daemon/schedule/schedule.go MkdirAll":   systemd,
		"daemon/schedule/schedule.go Symlink":    systemd,
		"daemon/schedule/schedule.go WriteFile":  systemd,
		"daemon/switches.go Replace":             own,
		"sandbox/cgroup/cgroup.go Mkdir":         kernel,
		"sandbox/cgroup/leaf.go Mkdir":           kernel,
		"sandbox/claim.go WriteFile":             own,
		"sandbox/durable/durable.go OpenFile":    "a folder of its caller's own",
		"sandbox/durable/durable.go Rename":      "a folder of its caller's own",
		"sandbox/sandbox.go MkdirAll":            own,
		"sandbox/shim/job.go Rename":             own,
		"sandbox/shim/record.go Replace":         own,
		"sandbox/shim/state.go ListenUnix":       own,
		"sandbox/shim/place.go ReadFile":         kernel,
		"sandbox/shim/place.go WriteFile":        kernel,
		"sandbox/shim/tree.go ReadDir":           kernel,
		"sandbox/shim/tree.go ReadFile":          kernel,
		"sandbox/jail/fork/namespace.go Open":    kernel,
		"sandbox/jail/credential.go Fchmodat":    made,
		"sandbox/jail/credential.go Openat":      made,
		"sandbox/jail/piece.go Mkdirat":          made,
		"sandbox/jail/piece.go Openat":           made,
		"sandbox/jail/piece.go OpenTree":         made,
		"sandbox/jail/mount.go Mkdirat":          made,
		"sandbox/jail/mount.go OpenTree":         "by a descriptor",
		"sandbox/jail/mount.go Symlinkat":        made,
		"sandbox/jail/furnish.go Open":           kernel,
		"sandbox/jail/room.go Openat":            kernel,
		"sandbox/jail/furnish.go Stat":           "a question, with the rights of the job",
		"sandbox/jail/furnish.go WriteFile":      kernel,
		"sandbox/jail/untouched.go Openat":       kernel,
		"sandbox/safepath/safepath.go Mkdirat":   "what the others use",
		"sandbox/safepath/safepath.go Openat":    "what the others use",
		"daemon/remote.go Replace":               own,
	}
}

// TestNothingIsMadeByPath finds each call that makes or opens something by a path, where root works in folders of others.
func TestNothingIsMadeByPath(t *testing.T) {
	allowed := byPath()
	used := map[string]bool{}
	for _, dir := range []string{"cmd/rtaskd", "cmd/rtask-shim", "daemon", "sandbox"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "daemon/gateway/") {
				return err
			}
			for call, at := range pathCalls(t, path) {
				used[call] = true
				if allowed[call] == "" {
					t.Errorf("%s: makes or opens something by its path: use package safepath, or say in byPath why no other user can change where it leads", at)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for call := range allowed {
		if !used[call] {
			t.Errorf("there is no call %s any more: remove it from byPath", call)
		}
	}
}

// pathCalls returns the calls of a file that are of interest, with where they are.
func pathCalls(t *testing.T, file string) map[string]token.Position {
	t.Helper()
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	jailed := strings.HasPrefix(file, "sandbox/jail/") || strings.HasPrefix(file, "sandbox/shim/")
	found := map[string]token.Position{}
	ast.Inspect(tree, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := f.X.(*ast.Ident)
		if !ok || !slices.Contains([]string{"os", "unix", "syscall", "net", "filepath", "durable"}, pkg.Name) {
			return true
		}
		var text bytes.Buffer
		if err := printer.Fprint(&text, fset, call); err != nil {
			t.Fatal(err)
		}
		makes := slices.Contains(makers(), f.Sel.Name) || strings.Contains(f.Sel.Name, "Open") && strings.Contains(text.String(), "O_CREAT")
		if makes || jailed && slices.Contains(openers(), f.Sel.Name) {
			found[file+" "+f.Sel.Name] = fset.Position(call.Pos())
		}
		return true
	})
	return found
}
