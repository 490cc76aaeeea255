// Command syscalls makes the table of package sandbox/jail/seccomp: systemd's groups of system calls, as systemd-analyze(1)
// prints them, and the numbers of calls, address families and errors, as golang.org/x/sys has them from the kernel's headers.
//
// It is run by packaging/generate.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func main() {
	out := flag.String("o", "sandbox/jail/seccomp/table.go", "the file to write")
	flag.Parse()
	if err := generate(*out); err != nil {
		fmt.Fprintln(os.Stderr, "syscalls:", err)
		os.Exit(1)
	}
}

// abi is a column of the table: one way to call the kernel.
type abi struct {
	name    string
	file    string // of golang.org/x/sys/unix; empty: derived
	numbers map[string]int
}

func generate(out string) error {
	version, err := systemdVersion()
	if err != nil {
		return err
	}
	groups, known, err := systemdGroups()
	if err != nil {
		return err
	}
	dir, err := output("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys")
	if err != nil {
		return err
	}
	dir = filepath.Join(strings.TrimSpace(dir), "unix")
	abis := []*abi{
		{name: "x86-64", file: "zsysnum_linux_amd64.go"}, {name: "x32"}, {name: "x86", file: "zsysnum_linux_386.go"},
		{name: "arm64", file: "zsysnum_linux_arm64.go"}, {name: "arm", file: "zsysnum_linux_arm.go"},
	}
	for _, a := range abis {
		if a.file == "" {
			continue
		}
		if a.numbers, err = constants(filepath.Join(dir, a.file), "SYS_", ""); err != nil {
			return err
		}
	}
	abis[1].numbers = x32(abis[0].numbers)
	maps.Copy(abis[4].numbers, armPrivate())
	// Constants of the headers that are no calls.
	delete(abis[3].numbers, "arch_specific_syscall")
	delete(abis[4].numbers, "syscall_mask")
	for _, a := range abis {
		names := map[int]string{}
		for name, n := range a.numbers {
			if other, ok := names[n]; ok {
				return fmt.Errorf("%s: %s and %s are both call %d", a.name, name, other, n)
			}
			names[n] = name
		}
	}
	families, err := constants(filepath.Join(dir, "zerrors_linux.go"), "AF_", "")
	if err != nil {
		return err
	}
	delete(families, "max")
	errnos := map[string]int{}
	for _, name := range []string{"zerrors_linux.go", "zerrors_linux_amd64.go"} {
		some, err := constants(filepath.Join(dir, name), "E", "Errno")
		if err != nil {
			return err
		}
		maps.Copy(errnos, some)
	}
	text, err := render(version, abis, groups, known, families, errnos)
	if err != nil {
		return err
	}
	return os.WriteFile(out, text, 0o644)
}

// x32 returns the numbers of x32: those of x86-64, but for 36 calls whose arguments hold pointers, which have their own from 512
// on (arch/x86/entry/syscalls/syscall_64.tbl; by its comment there will be no more). Bit 30, which every one of them has, is left
// out.
func x32(amd64 map[string]int) map[string]int {
	numbers := maps.Clone(amd64)
	for i, name := range strings.Fields(`
		rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace rt_sigpending rt_sigtimedwait
		rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid set_robust_list get_robust_list vmsplice move_pages
		preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv process_vm_writev setsockopt getsockopt io_setup
		io_submit execveat preadv2 pwritev2`) {
		numbers[name] = 512 + i
	}
	// Calls of x86-64 alone, the entries with the ABI "64" that have no other.
	for _, name := range strings.Fields(`
		uselib _sysctl create_module get_kernel_syms query_module nfsservctl set_thread_area get_thread_area epoll_ctl_old
		epoll_wait_old vserver uprobe uretprobe`) {
		delete(numbers, name)
	}
	return numbers
}

// armPrivate returns the calls of arch/arm/include/uapi/asm/unistd.h that are counted from __ARM_NR_BASE.
func armPrivate() map[string]int {
	const base = 0x0f0000
	return map[string]int{
		"breakpoint": base + 1, "cacheflush": base + 2, "usr26": base + 3, "usr32": base + 4, "set_tls": base + 5, "get_tls": base + 6,
	}
}

func systemdVersion() (string, error) {
	out, err := output("systemd-analyze", "--version")
	if err != nil {
		return "", err
	}
	words := strings.Fields(out)
	if len(words) < 2 || words[0] != "systemd" {
		return "", fmt.Errorf("systemd-analyze --version prints %q", out)
	}
	return words[1], nil
}

// systemdGroups returns what each group has, other groups too, and the calls that systemd knows, which are the members of @known.
func systemdGroups() (groups map[string][]string, known map[string]bool, err error) {
	out, err := output("systemd-analyze", "--no-pager", "syscall-filter")
	if err != nil {
		return nil, nil, err
	}
	groups, known = map[string][]string{}, map[string]bool{}
	group := ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		word := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
			group = "" // what is in no group, and what this kernel has beyond that
		case strings.HasPrefix(line, "@"):
			group = line
		case word == "" || strings.HasPrefix(word, "#") || group == "":
		default:
			groups[group] = append(groups[group], word)
		}
	}
	var expand func(group string)
	expand = func(group string) {
		for _, m := range groups[group] {
			if strings.HasPrefix(m, "@") {
				expand(m)
			} else {
				known[m] = true
			}
		}
	}
	expand("@known")
	delete(groups, "@known")
	if len(groups["@system-service"]) == 0 || len(known) == 0 {
		return nil, nil, errors.New("systemd-analyze syscall-filter prints no @system-service or no @known")
	}
	return groups, known, nil
}

// constants returns the integer constants of a Go file whose names begin with prefix, without it and in lower case: those that are
// just numbers, or, with a conversion, those that are a number converted so.
func constants(file, prefix, conversion string) (map[string]int, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, d := range f.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.CONST {
			continue
		}
		for _, s := range decl.Specs {
			spec := s.(*ast.ValueSpec)
			name, ok := strings.CutPrefix(spec.Names[0].Name, prefix)
			if !ok || len(spec.Values) != 1 {
				continue
			}
			value := spec.Values[0]
			if converted, ok := value.(*ast.CallExpr); ok != (conversion != "") {
				continue
			} else if ok {
				to, ok := converted.Fun.(*ast.SelectorExpr)
				if !ok || to.Sel.Name != conversion {
					continue
				}
				value = converted.Args[0]
			}
			lit, ok := value.(*ast.BasicLit)
			if !ok {
				continue
			}
			n, err := strconv.ParseInt(lit.Value, 0, 32)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", file, spec.Names[0].Name, err)
			}
			found[strings.ToLower(name)] = int(n)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no constants that begin with %s", file, prefix)
	}
	return found, nil
}

func render(version string, abis []*abi, groups map[string][]string, known map[string]bool, families, errnos map[string]int) ([]byte, error) {
	names := maps.Clone(known)
	for _, members := range groups {
		for _, m := range members {
			if !strings.HasPrefix(m, "@") {
				names[m] = true
			} else if groups[m] == nil {
				return nil, fmt.Errorf("there is no group %s", m)
			}
		}
	}
	var columns []string
	for _, a := range abis {
		columns = append(columns, a.name)
		for name := range a.numbers {
			names[name] = true
		}
	}

	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated by packaging/syscalls from systemd %s and golang.org/x/sys. DO NOT EDIT.\n\npackage seccomp\n\n", version)
	fmt.Fprintf(&b, "// SystemdVersion is the version of systemd whose groups these are.\nconst SystemdVersion = %q\n\n", version)
	fmt.Fprintf(&b, "// callTable has each system call by name. The numbers are those of %s.\nvar callTable = [...]callRow{\n",
		strings.Join(columns, ", "))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(&b, "\t{%q, %v, [abis]int32{", name, known[name])
		for i, a := range abis {
			if i > 0 {
				b.WriteString(", ")
			}
			if n, ok := a.numbers[name]; ok {
				fmt.Fprint(&b, n)
			} else {
				b.WriteString("none")
			}
		}
		b.WriteString("}},\n")
	}
	b.WriteString("}\n\n// groupTable has each group of systemd's but @known, and what is in it, groups too.\nvar groupTable = [...]groupRow{\n")
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		fmt.Fprintf(&b, "\t{%q, %q},\n", name, strings.Join(groups[name], " "))
	}
	b.WriteString("}\n\n// familyTable has each address family (address_families(7)).\nvar familyTable = [...]numberRow{\n")
	writeNumbers(&b, "AF_", families)
	b.WriteString("}\n\n// errnoTable has each error of errno(3). They are the same on all these architectures.\nvar errnoTable = [...]numberRow{\n")
	writeNumbers(&b, "E", errnos)
	b.WriteString("}\n")
	return format.Source(b.Bytes())
}

func writeNumbers(b *bytes.Buffer, prefix string, numbers map[string]int) {
	for _, name := range slices.SortedFunc(maps.Keys(numbers), func(x, y string) int {
		return cmp.Or(cmp.Compare(numbers[x], numbers[y]), cmp.Compare(x, y))
	}) {
		fmt.Fprintf(b, "\t{%q, %d},\n", prefix+strings.ToUpper(name), numbers[name])
	}
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("cannot run %s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}
