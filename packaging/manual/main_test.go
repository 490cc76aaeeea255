package main

import (
	"os"
	"strings"
	"testing"
)

const path = "../man/rtask.hcl.5"

// TestManual: rtask.hcl(5) says what the tables of daemon/config say.
func TestManual(t *testing.T) {
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := made(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(page) {
		t.Errorf("%s is not what the tables of daemon/config make of it: run packaging/generate manual", path)
	}
}

// TestIncompleteManual: a page that lacks a setting, or has it twice, is not made.
func TestIncompleteManual(t *testing.T) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	region := begin + "pool\n"
	for want, change := range map[string][2]string{
		`warm of "pool" stands nowhere`:        {region, begin + "pool keep\n"},
		`"pool": warm stands twice`:            {region, region + end + "\n" + region},
		`"pole": there are no such settings`:   {region, begin + "pole\n"},
		`there is no entry for the block pool`: {"\n.It Ic pool No ", "\n.It Ic pole No "},
		`"param" is within another one`:        {region, begin + "profiles\n" + begin + "param\n"},
	} {
		if !strings.Contains(page, change[0]) {
			t.Fatalf("%q is not in the page", change[0])
		}
		if _, err := made([]byte(strings.Replace(page, change[0], change[1], 1))); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// TestText has each form of what may stand in the text of a setting.
func TestText(t *testing.T) {
	m := manual{names: map[string]bool{"queue": true}}
	const text = "One (`/etc`) two. `queue`, not `\"queue\"`: -5 as x(5), [POOL].\n\n`PATH` and `429`.\n.Bl -tag\n.El"
	const want = "One\n.Pa ( /etc )\ntwo.\n.Ic queue ,\nnot\n.Ql \\(dqqueue\\(dq :\n\\-5 as\n.Xr x 5 ,\n.Sx POOL .\n.Pp\n.Ev PATH\nand\n.Sy 429 .\n.Bl -tag\n.El\n"
	if got := m.text(text); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
