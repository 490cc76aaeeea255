# shellcheck shell=sh
# How everything here is compiled, so that no script compiles what another one has: the Makefile and the scripts beside this file read it.
# What is linked is stripped, so nothing for a debugger is compiled. The version is packaging/version's; Go would ask git, too, which
# refuses a tree of another owner.
case " ${GOFLAGS:-} " in
*' -buildvcs=false '*) ;;
*) GOFLAGS="${GOFLAGS:+$GOFLAGS }-trimpath -gcflags=all=-dwarf=false -buildvcs=false" ;;
esac
export GOFLAGS CGO_ENABLED=0

# build_programs builds all programs into a new folder of the temporary one, once for all tests, which find them there by
# RTASK_PROGRAMS (packaging/testkit). Other users must reach them. Whoever calls it removes the folder.
build_programs() {
	RTASK_PROGRAMS=$(mktemp -d) && chmod 0755 "$RTASK_PROGRAMS" && go build -o "$RTASK_PROGRAMS/" ./cmd/... && export RTASK_PROGRAMS
}

# build_interop builds the clients and the provider that others wrote, into bin/interop: a module of its own has them. What is there
# already is not built again.
build_interop() {
	go -C packaging/interop build -ldflags='-s -w' -o ../../bin/interop/ ./... github.com/fullstorydev/grpcurl/cmd/grpcurl
}

# fetch_sdks fetches the programs of webhooks' senders that sign or verify, into bin/interop/senders: npm takes the versions in
# packaging/interop/senders and checks what it gets. None of their scripts runs. What is there already is not fetched again.
fetch_sdks() (
	from=packaging/interop/senders to=bin/interop/senders
	! cmp -s "$from/package-lock.json" "$to/fetched" || exit 0
	rm -rf "$to" && mkdir -p "$to" && cp "$from"/package*.json "$to/" &&
		npm ci --prefix "$to" --ignore-scripts --omit=dev --omit=peer --no-audit --no-fund --loglevel=error &&
		cp "$from/package-lock.json" "$to/fetched"
)
