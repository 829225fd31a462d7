package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/gridloom/gridloom/node/iam"
)

const (
	keyVariable    = "GRIDLOOM_KEY"
	secretVariable = "GRIDLOOM_MESH_SECRET"
	maxSecretBytes = 64 << 10
	credentialsDoc = "# Made by gridloom. Whoever can read this file owns the data beside it.\n"
)

// reader reads a file of secrets: certs.ReadPrivate for the servers, who refuse
// one that others can read, readBounded for the clients.
type reader func(name string, limit int64) ([]byte, error)

// readKey reads the credential that the settings name: the key itself or a
// file, whichever comes from the stronger source, and the first of several. Its
// errors name the setting; none repeats a key. ok is false where neither is
// given.
func (s *settings) readKey() (cred iam.Credential, ok bool, err error) {
	keys, err := s.readKeys(readBounded, iam.ParseCredential)
	if err != nil || keys == nil {
		return cred, false, err
	}
	return keys.get()[0], true, nil
}

// readKeys reads all the credentials that the settings name; nil where they name
// none.
func (s *settings) readKeys(read reader, parse func(string) (iam.Credential, error)) (*secretList[iam.Credential], error) {
	path, err := s.oneOf("key", "key-file")
	if path == "" || err != nil {
		return nil, err
	}
	l := &secretList[iam.Credential]{what: "key", parse: parse}
	if path == "key-file" {
		l.file, l.variable, l.read = s.KeyFile, keyVariable, read
	}
	if err := l.begin([]string{s.Key}); err != nil {
		return nil, s.blame(path, err)
	}
	return l, nil
}

// readKeyText gives what the settings name before it is known what it is. path is that of the
// setting, "" for none.
func (s *settings) readKeyText() (text, path string, err error) {
	path, err = s.oneOf("key", "key-file")
	if path == "" || err != nil {
		return "", "", err
	}
	text = s.Key
	if path == "key-file" {
		if text, err = readSecret(s.KeyFile, keyVariable, readBounded); err != nil {
			return "", path, s.blame(path, err)
		}
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n") // of several the first
	return strings.TrimSpace(text), path, nil
}

// login is what a client shows a node: a key, or the token that stands for one.
type login struct {
	key   iam.Credential
	token string // where there is no key
}

// bearer is what goes after "Bearer ".
func (l login) bearer() string {
	if l.key.IsZero() {
		return l.token
	}
	return l.key.String()
}

// readLogin reads what a client has: a key, the first of several, or a token.
func (s *settings) readLogin() (l login, ok bool, err error) {
	text, path, err := s.readKeyText()
	if path == "" || err != nil {
		return l, false, err
	}
	if strings.Count(text, ".") == 2 && !strings.ContainsAny(text, " \t\r\n") { // a JWT; no key has dots
		return login{token: text}, true, nil
	}
	if l.key, err = iam.ParseCredential(text); err != nil {
		return l, false, s.blame(path, err)
	}
	return l, true, nil
}

// readMeshSecrets reads the mesh secrets likewise; none given is none.
func (s *settings) readMeshSecrets(read reader) (*secretList[[]byte], error) {
	path, err := s.oneOf("mesh-secret", "mesh-secret-file")
	if path == "" || err != nil {
		return nil, err
	}
	l := &secretList[[]byte]{what: "secret", parse: iam.ParseMeshSecret}
	if path == "mesh-secret-file" {
		l.file, l.variable, l.read = s.MeshSecretFile, secretVariable, read
	}
	if err := l.begin(s.MeshSecret); err != nil {
		return nil, s.blame(path, err)
	}
	return l, nil
}

// oneOf tells which of two settings for the same thing counts, "" for neither.
// Both from the same source contradict each other.
func (s *settings) oneOf(value, file string) (string, error) {
	v, f := s.given(value), s.given(file)
	switch {
	case v == fromDefault && f == fromDefault:
		return "", nil
	case v == f:
		return "", s.blame(value, fmt.Errorf("given together with --%s; give one of them", s.row(file).flag()))
	case v > f:
		return value, nil
	}
	return file, nil
}

// readSecret reads a file that holds a secret alone, or as the variable's line
// of an environment file, as ours and systemd's are.
func readSecret(name, variable string, read reader) (string, error) {
	data, err := read(name, maxSecretBytes)
	if err != nil {
		return "", err
	}
	var alone []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if key, value, ok := strings.Cut(line, "="); ok && key == variable {
			return strings.Trim(value, `"'`), nil
		}
		if line != "" && !strings.HasPrefix(line, "#") {
			alone = append(alone, line)
		}
	}
	if len(alone) == 0 {
		return "", fmt.Errorf("%s is empty", name)
	}
	return strings.Join(alone, "\n"), nil
}

// credentials are what a node alone, or dev, makes for itself and keeps.
type credentials struct {
	key    iam.Credential
	secret string
}

// generateCredentials makes new ones, which nobody has seen.
func generateCredentials() credentials {
	return credentials{key: iam.Generate(iam.RootID), secret: iam.NewMeshSecret()}
}

func credentialsFile(dir string) string { return filepath.Join(dir, "credentials") }

// readCredentials reads those kept in a data directory; fs.ErrNotExist if
// there are none.
func readCredentials(dir string, read reader) (c credentials, err error) {
	name := credentialsFile(dir)
	key, err := readSecret(name, keyVariable, read)
	if err != nil {
		return c, err
	}
	if c.key, err = iam.ParseCredential(key); err != nil {
		return c, fmt.Errorf("%s: %w", name, err)
	}
	if c.secret, err = readSecret(name, secretVariable, read); err != nil {
		return c, err
	}
	if _, err = iam.ParseMeshSecret(c.secret); err != nil {
		return c, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// keep writes them into a data directory that this process has locked, for its
// owner's eyes only: whole or not at all, and synced, as it is handed out
// at once.
func (c credentials) keep(dir string) error {
	temp, err := os.CreateTemp(dir, "credentials.*.new") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // in vain when all went well
	_, err = fmt.Fprintf(temp, "%s%s=%s\n%s=%s\n", credentialsDoc, keyVariable, c.key.String(), secretVariable, c.secret)
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temp.Name(), credentialsFile(dir))
	}
	if err != nil || runtime.GOOS == "windows" { // which can't sync a directory
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
