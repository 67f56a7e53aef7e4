package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"updraft/delta/release"
	"updraft/node/identity"
)

// maxPassphrase bounds a passphrase, in bytes.
const maxPassphrase = 1024

var errPassphrase = errors.New("no passphrase")

// keys opens sealed key files for a command.
func (u *ui) keys() *release.Keys { return &release.Keys{Passphrase: u.passphrase} }

// passphrase takes the passphrase of a key file from the environment, a file or the
// terminal; for a fresh file it asks twice. On the terminal, nothing stands for the
// passphrase given before.
func (u *ui) passphrase(path string, fresh bool) (string, error) {
	if p := os.Getenv("UPDRAFT_PASSPHRASE"); p != "" {
		return p, nil
	}
	if name := os.Getenv("UPDRAFT_PASSPHRASE_FILE"); name != "" {
		b, err := identity.ReadSecret(name, maxPassphrase)
		if err != nil {
			return "", err
		}
		if p := strings.TrimRight(string(b), "\r\n"); p != "" {
			return p, nil
		}
		return "", fmt.Errorf("%w in %s", errPassphrase, name)
	}
	in, ok := u.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", fmt.Errorf("%w: standard input is no terminal", errPassphrase)
	}
	what := "Passphrase of " + path
	if u.typed != "" {
		what += " (nothing: the one before)"
	}
	p, err := u.ask(in, what)
	switch {
	case err != nil:
		return "", err
	case p == "" && u.typed != "":
		return u.typed, nil
	case p == "":
		return "", errPassphrase
	}
	if fresh {
		again, err := u.ask(in, "Once more")
		if err != nil {
			return "", err
		}
		if again != p {
			return "", fmt.Errorf("%w: the two differ", errPassphrase)
		}
	}
	u.typed = p
	return p, nil
}

func (u *ui) ask(in *os.File, what string) (string, error) {
	fmt.Fprintf(u.err, "%s: ", what)
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(u.err)
	return string(b), err
}
