package main

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"updraft/node/identity"
	"updraft/node/report"
)

// traces returns what each half of a secret looks like where bytes become text: as they
// are, in hexadecimal, in base 64 (which PEM and JSON are) and base 32, whatever stands in
// front, and as a list of numbers.
func traces(secret []byte) []string {
	var out []string
	for _, half := range [][]byte{secret[:len(secret)/2], secret[len(secret)/2:]} {
		out = append(out, string(half), hex.EncodeToString(half), strings.ToUpper(hex.EncodeToString(half)), strings.Trim(fmt.Sprintf("%d", half), "[]"), strings.Trim(strconv.Quote(string(half)), `"`))
		for skip := range 5 {
			b := half[skip:]
			for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				out = append(out, e.EncodeToString(b[:len(b)/3*3]))
			}
			text := base32.StdEncoding.EncodeToString(b[:len(b)/5*5])
			out = append(out, text, strings.ToLower(text))
		}
	}
	return out
}

// exposed returns which of the secrets are in text.
func exposed(text string, secrets map[string][]byte) []string {
	var out []string
	for name, secret := range secrets {
		for _, s := range traces(secret) {
			if strings.Contains(text, s) {
				out = append(out, fmt.Sprintf("%s: %q", name, s))
			}
		}
	}
	return out
}

// TestExposedIsFound: the test below would see a key.
func TestExposedIsFound(t *testing.T) {
	key := []byte("0123456789abcdef\x00\x01\xfe\xffABCDEFGHIJKL")
	for name, text := range map[string]string{
		"raw": string(key), "hexadecimal": strings.ToUpper(hex.EncodeToString(key)), "numbers": fmt.Sprintf("%d", key), "quoted": strconv.Quote(string(key)),
		"base 64":       base64.StdEncoding.EncodeToString(key),
		"within others": base64.URLEncoding.EncodeToString(append([]byte("ab"), key...)),
		"base 32":       base32.StdEncoding.EncodeToString(append([]byte("abc"), key...)),
		"PEM":           string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: append([]byte("0123"), key...)})),
	} {
		if len(exposed("before "+text+" behind", map[string][]byte{"key": key})) == 0 {
			t.Errorf("%s: not found in %q", name, text)
		}
	}
}

// TestLogsAndStatusHoldNoKey runs two devices of a site and a stranger at the lowest level
// of logs, through an update and what goes wrong besides, and asks all that can be asked:
// nowhere is a key, the site's secret or a token, nor what may be secret in the URL of an origin.
func TestLogsAndStatusHoldNoKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log buffer // all that is printed
	path := func(s string) string { return filepath.Join(dir, s) }
	updraft := func(ctx context.Context, args ...string) (string, int) {
		var out bytes.Buffer
		code := run(ctx, args, strings.NewReader(""), &out, &log)
		fmt.Fprint(&log, out.String())
		return out.String(), code
	}
	must := func(args ...string) {
		t.Helper()
		if _, code := updraft(t.Context(), args...); code != exitOK {
			t.Fatalf("%v: exit code %d\n%s", args, code, log.String())
		}
	}
	secrets := map[string][]byte{"user of the origin": []byte("nobody-knows-who-fetches-updates"), "password of the origin": []byte("correct-horse-battery-staple-yes"), "query of the origin": []byte("0fa63bc1e5d24f7788b90c1d2e3f4a5b")}
	mirror := httptest.NewServer(http.NotFoundHandler())
	defer mirror.Close()
	u, err := url.Parse(mirror.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User, u.RawQuery = url.UserPassword(string(secrets["user of the origin"]), string(secrets["password of the origin"])), "sig="+string(secrets["query of the origin"])
	fleet := func(name string) {
		must("init", path(name))
		must("token", "create", "--fleet", path(name), "--uses", "9", "--expires", "1h", "--site", "lab", "--role", "operator", "--origin", u.String(), "--origin", path(name+"/origin"), "-o", path(name+".token"))
		b, err := os.ReadFile(path(name + ".token"))
		if err != nil {
			t.Fatal(err)
		}
		token, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(strings.TrimPrefix(strings.TrimSpace(string(b)), "updraft-token-")))
		if err != nil {
			t.Fatal(err)
		}
		secrets["token of "+name] = token
	}
	enroll := func(fleet, name string) {
		must("enroll", "request", "--name", name, "--token", path(fleet+".token"), "-o", path(name+".request"))
		must("enroll", "approve", "--fleet", path(fleet), "-o", dir, path(name+".request"))
		must("enroll", "complete", "--key", path(name+".request.key"), path(name+".answer"), "-o", path(name+".updraft"))
		e, err := identity.ReadEnrollment(path(name + ".updraft"))
		if err != nil {
			t.Fatal(err)
		}
		key, _, err := e.PrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := key.Raw()
		if err != nil {
			t.Fatal(err)
		}
		secrets["key of "+name] = raw[:32] // the other half is public
		secrets["site key of "+name] = e.SiteKey[:]
	}
	fleet("fleet")
	fleet("others")
	for name, fleet := range map[string]string{"a": "fleet", "b": "fleet", "stranger": "others"} {
		enroll(fleet, name)
	}
	if err := os.WriteFile(path("app"), bytes.Repeat([]byte("a program\n"), 100_000), 0o755); err != nil {
		t.Fatal(err)
	}
	must("publish", "--fleet", path("fleet"), "--channel", "stable", "--version", "1.0.0", path("app"))

	// No process outlives the test: the directories are its own.
	ctx, cancel := context.WithCancel(context.Background())
	var ended []chan int
	stop := func() {
		cancel()
		for _, c := range ended {
			<-c
		}
		ended = nil
	}
	defer stop()
	var peers []string
	for _, name := range []string{"a", "b", "stranger"} {
		listen := "/ip4/127.0.0.1/tcp/" + freePort(t)
		args := []string{"agent", "--log-level", "debug", "--enrollment", path(name + ".updraft"), "--data", path(name), "--listen", listen, "--poll", "1m", "--lan-rate", "100mbit"}
		if name == "b" { // a brings it what it does not get there
			args = append(args, "--origin", u.String())
		}
		for _, p := range peers {
			args = append(args, "--peer", p)
		}
		done := make(chan int, 1)
		go func() {
			_, code := updraft(ctx, args...)
			done <- code
		}()
		ended = append(ended, done)
		var st report.Status
		until(t, &log, func() bool {
			out, code := updraft(t.Context(), "status", "--json", "--data", path(name))
			return code == exitOK && json.Unmarshal([]byte(out), &st) == nil && (st.Current == "1.0.0" || name == "stranger" && strings.Contains(log.String(), "not admitted"))
		})
		peers = append(peers, listen+"/p2p/"+st.PeerID)
	}
	for _, args := range [][]string{{"status", "--why"}, {"peers"}, {"plan"}, {"check"}, {"verify"}, {"site"}} {
		for _, name := range []string{"a", "b", "stranger"} {
			more := []string{"--log-level", "debug", "--data", path(name)}
			_, _ = updraft(t.Context(), append(args[:len(args):len(args)], more...)...)
			_, _ = updraft(t.Context(), append(append(args[:len(args):len(args)], more...), "--json")...)
		}
	}
	// What cannot be read is not quoted.
	b, err := os.ReadFile(path("a.updraft"))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"cut": b[:len(b)-20], "changed": bytes.Replace(b, []byte(`"name": "a"`), []byte(`"name": "c"`), 1), "junk": append([]byte("x"), b...)} {
		if err := os.WriteFile(path(name+".updraft"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, code := updraft(t.Context(), "agent", "--log-level", "debug", "--enrollment", path(name+".updraft"), "--data", path(name)); code == exitOK {
			t.Errorf("a %s enrollment is good enough", name)
		}
	}
	stop()
	text := log.String()
	for _, word := range []string{"level=DEBUG", `"not_after"`, "not admitted", mirror.Listener.Addr().String() + "?..."} {
		if !strings.Contains(text, word) {
			t.Errorf("the log shows too little: no %s", word)
		}
	}
	for _, s := range exposed(text, secrets) {
		t.Errorf("printed: %s", s)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// until waits for ok.
func until(t *testing.T, log *buffer, ok func() bool) {
	t.Helper()
	for range 600 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("not within half a minute:\n%s", log.String())
}
