package rtask_test

import (
	"go/ast"
	"go/types"
	"io/fs"
	"path/filepath"
	"regexp"
	"testing"
)

// TestLockIsHeld checks that a function whose comment says "mu is held." (or "The lock is held.") is called only by functions that say so,
// too, or that lock a mutex before. It looks only at the order of the text: it finds a caller that forgot the lock, and none that gave it
// back too early.
func TestLockIsHeld(t *testing.T) {
	held := 0
	for _, root := range []string{"cmd", "ctl", "daemon", "sandbox"} {
		err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				held += checkLocks(t, dir)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if held == 0 {
		t.Error("no function says so any more: this test looks for the wrong words")
	}
}

// checkLocks looks at one package, and returns how many of its functions want a lock.
func checkLocks(t *testing.T, dir string) int {
	fset, files, info := typed(t, dir)
	wants, says := map[types.Object]bool{}, regexp.MustCompile(`(\b(mu|change|loading|writing)|\. The lock)\s+is\s+held\.`)
	var functions []*ast.FuncDecl
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				functions = append(functions, fn)
				if says.MatchString(fn.Doc.Text()) {
					wants[info.Defs[fn.Name]] = true
				}
			}
		}
	}
	for _, fn := range functions {
		if wants[info.Defs[fn.Name]] {
			continue
		}
		locked := false
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name, _ := call.Fun.(*ast.Ident)
			if s, ok := call.Fun.(*ast.SelectorExpr); ok {
				name = s.Sel
			}
			switch {
			case name == nil:
			case name.Name == "Lock" || name.Name == "RLock":
				locked = true
			case wants[origin(info.Uses[name])] && !locked:
				t.Errorf("%s: %s is called without its lock", fset.Position(call.Pos()), name.Name)
			}
			return true
		})
	}
	return len(wants)
}

// origin returns the method of a generic type that o is an instance of, or o.
func origin(o types.Object) types.Object {
	if f, ok := o.(*types.Func); ok {
		return f.Origin()
	}
	return o
}
