package main

import "time"

// config is the table of every setting. A field is one setting, and its tags
// are all there is to know about it: its three spellings, who reads it, what
// it means. Flags, GRIDLOOM_* variables, YAML paths, the help texts and
// docs/configuration.md come from here and from nowhere else.
//
//	cfg      its name. Nesting makes the YAML path http.cert-key, which is the
//	         flag --http-cert-key and the variable GRIDLOOM_HTTP_CERT_KEY
//	in       the commands that have it; after a colon the sources it may come
//	         from there (flag, env, yaml; joined by +). Without one: flag and
//	         env, and for serve yaml too
//	default  what it is otherwise; default_dev is for dev alone, default_http for
//	         one listener
//	help     what it means, help_dev in dev, help_client in the clients; {} stands for the listener's clients
//	arg      what stands for its value in help texts; a word of help
//	oneof    the only values allowed, separated by |
//	range    the only numbers allowed, MIN-MAX
//	secret   its value is never repeated in a message
//	node     the field of node.Config that it ends up in, so that an error
//	         about that field can be laid at the right door
//
// Secrets have no flag in serve, where the command line of a long-lived
// process is there for every user of the machine to read.
type config struct {
	ConfigFile string `cfg:"config" in:"serve:flag+env" arg:"FILE" help:"read settings from the YAML file FILE"`

	Name   string   `cfg:"name" in:"serve" arg:"NAME" node:"Name" help:"NAME of this node, its identity in the mesh (default node1 when alone)"`
	Data   string   `cfg:"data" in:"serve dev client ca" default:"gridloom-data" default_dev:"" default_client:"" arg:"DIR" node:"DataDir" help:"directory DIR for the index, the identity and generated credentials" help_dev:"keep everything in directory DIR, and start from what is there (default a temporary one)" help_client:"data directory DIR of a node on this machine: use its key if no other is given, and TLS with its certificate authority if it has one" help_ca:"data directory DIR of a node that runs with --tls auto"`
	Drive  []string `cfg:"drive" in:"serve" arg:"DIR" node:"Drives" help:"directory DIR for payload, one on each disk; repeatable (default drives/1 in the data directory)"`
	Pool   string   `cfg:"pool" in:"serve" default:"default" arg:"NAME" node:"Pool" help:"the pool NAME that this node's drives are in: the copies of a payload are in one pool, and new payload goes where most is free"`
	Zone   string   `cfg:"zone" in:"serve" arg:"NAME" node:"Zone" help:"the zone NAME that this node is in, a rack or a site: copies are kept in different zones where there are some (default a zone of its own)"`
	Peers  peerList `cfg:"peers" in:"serve" arg:"NAME=URL,..." node:"Peers" help:"founding nodes NAME=URL,... of the mesh with the base URLs of their peer listeners, this node included; none: this node is alone"`
	Nodes  int      `cfg:"nodes" in:"dev" default:"3" range:"1-32" arg:"N" help:"start N nodes"`
	Pools  int      `cfg:"pools" in:"dev" default:"1" range:"1-32" arg:"N" help:"have N pools, with the nodes dealt out among them"`
	Drives int      `cfg:"drives" in:"dev" default:"2" range:"1-16" arg:"N" help:"give each node N drives"`
	Port   int      `cfg:"port" in:"dev" default:"7400" range:"0-65535" arg:"BASE" help:"port BASE for gRPC of node 1, BASE+1 for its HTTP and BASE+2 for its peer listener; node 2 has BASE+10 to BASE+12, and so on; 0 takes free ports"`

	GRPC listenerConfig `cfg:"grpc"`
	HTTP listenerConfig `cfg:"http"`
	Peer listenerConfig `cfg:"peer"`

	TLS     string   `cfg:"tls" in:"serve" default:"files" oneof:"auto|files|off" arg:"HOW" help:"HOW listeners get certificates: auto makes them, for those without files of their own, with an authority that follows from the mesh secret; files uses TLS where files are given; off nowhere"`
	TLSName []string `cfg:"tls-name" in:"serve" arg:"NAME" node:"CertificateNames" help:"a further host NAME or IP address by which clients know this node, for its --tls auto certificate; repeatable"`

	Insecure []string `cfg:"insecure" in:"serve" oneof:"grpc|http|peer" arg:"LISTENER" help:"let LISTENER (grpc, http or peer) listen off loopback without a certificate; repeatable"`

	KeyFile        string   `cfg:"key-file" in:"serve client" arg:"FILE" node:"RootKeys" help:"read the root key from FILE (the key alone, or a line GRIDLOOM_KEY=...), and again when it changes; of several lines all are accepted" help_client:"read the key from FILE (the key alone, or a line GRIDLOOM_KEY=...); of several lines the first is used"`
	Key            string   `cfg:"key" in:"serve:env dev client" secret:"" arg:"KEY" node:"RootKeys" help:"the KEY itself (gridloom keygen makes one)" help_dev:"make KEY the root key, in place of one that is generated"`
	MeshSecretFile string   `cfg:"mesh-secret-file" in:"serve ca" arg:"FILE" node:"MeshSecrets" help:"read the mesh secret, the same on all nodes, from FILE, and again when it changes; of several lines the first is used and all are accepted" help_ca:"the mesh secret is in FILE"`
	MeshSecret     []string `cfg:"mesh-secret" in:"serve:env ca:env" secret:"" arg:"SECRET" node:"MeshSecrets" help:"the SECRET itself, or several with commas (gridloom keygen --mesh-secret makes one)"`

	Reserve byteSize `cfg:"reserve" in:"serve dev" arg:"SIZE" node:"ReserveBytes" help:"keep SIZE (bytes, or with KiB, MiB, GiB, TiB) free on each drive; 0 leaves the choice to Gridloom"`

	Heal struct {
		After time.Duration `cfg:"after" in:"serve dev" default:"15m" arg:"DURATION" node:"Heal.After" help:"take a drive that isn't well, or whose node is away, for lost after DURATION, and copy again what it had"`
		Rate  byteSize      `cfg:"rate" in:"serve dev" default:"256 MiB" arg:"SIZE" node:"Heal.BytesPerSecond" help:"copy and verify SIZE a second in the whole mesh, to heal, drain and rebalance"`
	} `cfg:"heal"`

	Scrub struct {
		Period time.Duration `cfg:"period" in:"serve dev" default:"336h" arg:"DURATION" node:"Heal.ScrubPeriod" help:"read and verify every copy once in DURATION"`
	} `cfg:"scrub"`

	Limit limitConfig `cfg:"limit"`

	CORS struct {
		Origin []string      `cfg:"origin" in:"serve dev" arg:"ORIGIN" node:"CORS.Origins" help:"let web pages of ORIGIN (https://app.example.com; * for any) use /data and /v1 from browsers, with keys or links of their own; repeatable (default no pages)"`
		Method []string      `cfg:"method" in:"serve dev" arg:"METHOD" node:"CORS.Methods" help:"let them use METHOD; repeatable (default GET, HEAD, POST, PUT, PATCH and DELETE)"`
		Expose []string      `cfg:"expose" in:"serve dev" arg:"NAME" node:"CORS.Expose" help:"let them see the header NAME of answers; repeatable (default all)"`
		MaxAge time.Duration `cfg:"max-age" in:"serve dev" default:"10m" arg:"DURATION" node:"CORS.MaxAge" help:"let browsers keep for DURATION what they were told about that"`
	} `cfg:"cors"`

	OTLP struct {
		Endpoint string `cfg:"endpoint" in:"serve dev" arg:"ENDPOINT" node:"OTLP" help:"push metrics, traces and logs by OTLP to ENDPOINT, HOST:PORT or a URL; without one, to where OpenTelemetry's variables say"`
		Insecure bool   `cfg:"insecure" in:"serve dev" help:"talk to that HOST:PORT without TLS"`
		Protocol string `cfg:"protocol" in:"serve dev" oneof:"grpc|http/protobuf" arg:"PROTOCOL" help:"push by PROTOCOL, grpc or http/protobuf (default what OTEL_EXPORTER_OTLP_PROTOCOL says, or grpc)"`
	} `cfg:"otlp"`

	Metrics struct {
		Bucket []string `cfg:"bucket" in:"serve dev" arg:"BUCKET" node:"MetricsBuckets" help:"measure the requests to BUCKET also by themselves, as gridloom_bucket_request_* with the label bucket; repeatable, at most 32 (default none: no metric names a bucket)"`
	} `cfg:"metrics"`

	Audit struct {
		Level string   `cfg:"level" in:"serve dev" default:"changes" oneof:"off|changes|all" arg:"LEVEL" node:"Audit.Level" help:"keep a record of requests as LEVEL says: off, changes (all but reads that succeeded) or all"`
		File  string   `cfg:"file" in:"serve" arg:"FILE" node:"Audit.File" help:"write it to FILE, a line of JSON each (default audit.log in the data directory)"`
		Size  byteSize `cfg:"size" in:"serve" default:"64MiB" arg:"SIZE" node:"Audit.MaxBytes" help:"begin another file once there are SIZE bytes in it (or with KiB, MiB, GiB)"`
		Keep  int      `cfg:"keep" in:"serve" default:"10" range:"1-1000" arg:"N" node:"Audit.Keep" help:"keep the last N files that were full"`
	} `cfg:"audit"`

	Log struct {
		Level  string `cfg:"level" in:"serve dev" default:"info" default_dev:"warn" oneof:"debug|info|warn|error" arg:"LEVEL" help:"log from LEVEL on: debug, info, warn or error"`
		Format string `cfg:"format" in:"serve dev" default:"text" oneof:"text|json" arg:"FORMAT" help:"log as FORMAT: text or json"`
	} `cfg:"log"`

	Endpoint  string        `cfg:"endpoint" in:"client" default:"127.0.0.1:7400" arg:"HOST:PORT" help:"gRPC listener HOST:PORT of any node"`
	CA        string        `cfg:"ca" in:"client" arg:"FILE" help:"use TLS, and trust the certificate authorities in FILE (PEM) instead of the system's"`
	Cert      string        `cfg:"cert" in:"client" arg:"FILE" help:"show the node the client certificate in FILE (PEM)"`
	CertKey   string        `cfg:"cert-key" in:"client" arg:"FILE" help:"the client certificate's private key is in FILE (PEM)"`
	Plaintext bool          `cfg:"plaintext" in:"client" help:"send key and bytes without TLS to an endpoint off loopback"`
	Timeout   time.Duration `cfg:"timeout" in:"client" default:"30s" arg:"DURATION" help:"give up on a call after DURATION, and on a transfer that makes no progress for as long; 0 never"`
}

// listenerConfig is one listener of a node.
type listenerConfig struct {
	Addr    string `cfg:"addr" in:"serve" default_grpc:"127.0.0.1:7400" default_http:"127.0.0.1:7401" default_peer:"127.0.0.1:7402" arg:"HOST:PORT" node:"Addr" help:"listen on HOST:PORT for {}; port 0 takes a free one"`
	Cert    string `cfg:"cert" in:"serve" arg:"FILE" node:"CertFile" help:"use TLS with {}, with the certificate chain in FILE (PEM), which is read again when it changes"`
	CertKey string `cfg:"cert-key" in:"serve" arg:"FILE" node:"KeyFile" help:"the private key for that is in FILE (PEM)"`
	CA      string `cfg:"ca" in:"serve" arg:"FILE" node:"CAFile" help:"take certificates from {} that an authority in FILE (PEM) has signed; peers must have one, for their --name"`
}

// limitConfig are the limits of a node. Its fields end up in those of node.Limits
// with the same names, which a test makes sure of, defaults included.
type limitConfig struct {
	Connections           int           `cfg:"connections" in:"serve dev" default:"4096" range:"1-1000000" arg:"N" node:"Limits.Connections" help:"have at most N connections on each listener; one more takes the place of the one that is without a request for longest"`
	ConnectionsPerAddress int           `cfg:"connections-per-address" in:"serve dev" default:"1024" range:"1-1000000" arg:"N" node:"Limits.ConnectionsPerAddress" help:"have at most N of them from one address (IPv6: one network of 64 bits) but loopback"`
	HeaderTimeout         time.Duration `cfg:"header-timeout" in:"serve dev" default:"8s" arg:"DURATION" node:"Limits.HeaderTimeout" help:"wait for DURATION for the header of a request, and for the handshakes of TLS and HTTP/2"`
	IdleTimeout           time.Duration `cfg:"idle-timeout" in:"serve dev" default:"2m" arg:"DURATION" node:"Limits.IdleTimeout" help:"close a connection that is without a request for DURATION"`
	Streams               int           `cfg:"streams" in:"serve dev" default:"256" range:"1-100000" arg:"N" node:"Limits.Streams" help:"serve N requests at once on one HTTP/2 connection"`
	Frames                int           `cfg:"frames" in:"serve dev" default:"500" range:"1-1000000" arg:"N" node:"Limits.Frames" help:"close a gRPC connection that sends more than N HTTP/2 frames a second that ask for nothing, four times as many at once"`
	HeaderBytes           byteSize      `cfg:"header-size" in:"serve dev" default:"64 KiB" arg:"SIZE" node:"Limits.HeaderBytes" help:"accept an HTTP header of SIZE"`
	MetadataBytes         byteSize      `cfg:"metadata-size" in:"serve dev" default:"16 KiB" arg:"SIZE" node:"Limits.MetadataBytes" help:"accept gRPC metadata of SIZE"`
	MessageBytes          byteSize      `cfg:"message-size" in:"serve dev" default:"4 MiB" arg:"SIZE" node:"Limits.MessageBytes" help:"accept a gRPC message of SIZE, at least 1 MiB; JSON has 1 MiB"`
	Uploads               int           `cfg:"uploads" in:"serve dev" default:"512" range:"1-1000000" arg:"N" node:"Limits.Uploads" help:"take N uploads at once; each may hold one message in memory"`
	UploadsPerKey         int           `cfg:"uploads-per-key" in:"serve dev" default:"128" range:"1-1000000" arg:"N" node:"Limits.UploadsPerKey" help:"take N uploads at once of one access key"`
	UploadBytes           byteSize      `cfg:"upload-bytes" in:"serve dev" default:"512 GiB" arg:"SIZE" node:"Limits.UploadBytes" help:"hold SIZE of uploads that are not finished"`
	UploadBytesPerKey     byteSize      `cfg:"upload-bytes-per-key" in:"serve dev" default:"128 GiB" arg:"SIZE" node:"Limits.UploadBytesPerKey" help:"hold SIZE of them of one access key"`
	Requests              int           `cfg:"requests" in:"serve dev" default:"20000" range:"1-10000000" arg:"N" node:"Limits.Requests" help:"serve N requests a second of one access key, twice as many at once"`
	Failures              int           `cfg:"failures" in:"serve dev" default:"20" range:"1-1000000" arg:"N" node:"Limits.Failures" help:"answer N wrong credentials a minute from one address, and tell whoever shows more to wait"`
}
