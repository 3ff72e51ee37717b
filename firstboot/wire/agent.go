package wire

import (
	"time"

	"bramble/node"
)

// Paths on the appliance's HTTPS server that the agent uses. The first needs the boot's token, the others the node's
// certificate (mutual TLS): it alone says which node and boot is meant.
const (
	EnrollPath = "/v1/node/enroll" // POST EnrollRequest → EnrollAnswer
	ConfigPath = "/v1/node/config" // GET → Config; ?since=COMMIT waits up to a minute for another commit (then 200, or 304)
	TreePath   = "/v1/node/tree"   // GET ?commit= → tar of the node's Salt files
	StepPath   = "/v1/node/step"   // POST StepReport → 204
	OutputPath = "/v1/node/output" // POST ?step= text → 204; the appliance keeps a bounded tail per node and step
)

// Words on the kernel command line that the agent reads.
const (
	TokenWord  = "bramble.token" // single use, of this board and boot: buys one certificate
	PinWord    = "bramble.ca"    // SHA-256 in hex of the appliance's CA certificate (DER)
	SecureWord = "bramble.tls"   // host:port of the appliance's HTTPS server
)

// EnrollRequest asks for the certificates of one boot. The keys were made on the node and stay there.
type EnrollRequest struct {
	MAC    node.MAC    `json:"mac"`
	Serial node.Serial `json:"serial,omitzero"`
	Boot   node.BootID `json:"boot"`
	Token  string      `json:"token"`
	CSR    string      `json:"csr"`              // PEM, PKCS #10, ECDSA P-256; its subject is ignored
	SSHKey string      `json:"ssh_key"`          // host key, one authorized_keys line
	Minion string      `json:"minion,omitempty"` // Salt minion's public key, PEM; only in the mode "master"
}

// EnrollAnswer is the node's identity, or the code with which the admin approves it: then Wait is set, and the node asks
// again with the same token, CSR and key.
type EnrollAnswer struct {
	Name     string        `json:"name"`               // host name
	Cert     string        `json:"cert,omitempty"`     // PEM, for TLS as a client
	SSHCert  string        `json:"ssh_cert,omitempty"` // host certificate, one line as in ssh_host_ed25519_key-cert.pub
	Code     string        `json:"code,omitempty"`     // to be compared, such as "4K7Q-2MXD"
	Wait     time.Duration `json:"wait,omitempty"`
	NotAfter time.Time     `json:"not_after,omitzero"` // when the certificate ends; enroll again over mutual TLS before
}

// Config is what the configuration says of this node, pinned to one commit.
type Config struct {
	Commit  string      `json:"commit"`
	TreeSHA string      `json:"tree"` // SHA-256 in hex of the tar at TreePath
	Salt    Salt        `json:"salt"`
	Users   []LoginUser `json:"users,omitempty"`
}

// Salt says how Salt runs on a node.
type Salt struct {
	Mode   string         `json:"mode"` // "masterless", "master", "ssh" or "off"
	ID     string         `json:"id"`   // minion id
	Master string         `json:"master,omitempty"`
	Finger string         `json:"finger,omitempty"` // master_finger
	Grains map[string]any `json:"grains,omitempty"`
	Env    string         `json:"env"`    // "base"
	Every  time.Duration  `json:"every"`  // between highstates; 0: only on a new commit
	Memory int64          `json:"memory"` // MemoryMax of a run, bytes; 0: half of the node's
	Limit  time.Duration  `json:"limit"`  // of a run; 0: 15 minutes
}

// LoginUser is a login that the configuration asks for, beside the plan's own.
type LoginUser struct {
	Name string   `json:"name"`
	Keys []string `json:"keys"`
	Sudo bool     `json:"sudo,omitempty"`
}

// StepReport is one step of the agent, done or failed; the step "ready" says that all are done.
type StepReport struct {
	Step    string            `json:"step"` // "facts", "enroll", "ssh", "config", "salt", "ready"; "degraded"
	OK      bool              `json:"ok"`
	Text    string            `json:"text"` // one sentence
	Took    time.Duration     `json:"took"`
	Commit  string            `json:"commit,omitempty"`
	Facts   map[string]string `json:"facts,omitempty"`  // with the step "facts": model, serial, ram, kernel, image, temperature, throttled
	States  int               `json:"states,omitempty"` // with "salt": how many states ran, changed and failed
	Changed int               `json:"changed,omitempty"`
	Failed  []FailedState     `json:"failed,omitempty"`
	Peak    int64             `json:"peak,omitempty"` // most memory of a Salt run, bytes
}

// FailedState is one state of a highstate that came back false.
type FailedState struct {
	ID      string `json:"id"`
	File    string `json:"file"` // sls, such as "base.ssh"
	Comment string `json:"comment"`
}
