package main

import (
	"errors"
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

// readKey reads the credential that the settings name: the key itself or a
// file, whichever comes from the stronger source. Its errors name the setting;
// none repeats a key. ok is false where neither is given.
func (s *settings) readKey() (cred iam.Credential, ok bool, err error) {
	text, path, err := s.readKeyText()
	if path == "" || err != nil {
		return cred, false, err
	}
	if cred, err = iam.ParseCredential(text); err != nil {
		return cred, false, s.blame(path, err)
	}
	return cred, true, nil
}

// readKeyText is readKey before it is known what was given. path is that of the
// setting, "" for none.
func (s *settings) readKeyText() (text, path string, err error) {
	path, err = s.oneOf("key", "key-file")
	if path == "" || err != nil {
		return "", "", err
	}
	text = s.Key
	if path == "key-file" {
		if text, err = readSecret(s.KeyFile, keyVariable); err != nil {
			return "", path, s.blame(path, err)
		}
	}
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

// readLogin is readKey for clients, who may have a token instead.
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
func (s *settings) readMeshSecrets() ([][]byte, error) {
	path, err := s.oneOf("mesh-secret", "mesh-secret-file")
	if path == "" || err != nil {
		return nil, err
	}
	texts := s.MeshSecret
	if path == "mesh-secret-file" {
		text, err := readSecret(s.MeshSecretFile, secretVariable)
		if err != nil {
			return nil, s.blame(path, err)
		}
		texts = strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \r\n", r) })
	}
	if len(texts) == 0 {
		return nil, s.blame(path, errors.New("holds no secret"))
	}
	var secrets [][]byte
	for _, t := range texts {
		secret, err := iam.ParseMeshSecret(strings.TrimSpace(t))
		if err != nil {
			return nil, s.blame(path, err)
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
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
func readSecret(name, variable string) (string, error) {
	data, err := readBounded(name, maxSecretBytes)
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
func readCredentials(dir string) (c credentials, err error) {
	name := credentialsFile(dir)
	key, err := readSecret(name, keyVariable)
	if err != nil {
		return c, err
	}
	if c.key, err = iam.ParseCredential(key); err != nil {
		return c, fmt.Errorf("%s: %w", name, err)
	}
	if c.secret, err = readSecret(name, secretVariable); err != nil {
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
