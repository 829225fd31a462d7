package observability

// What WriteResources has besides: the calls of a node by API and its connections
// with the others, as of the last sample. They are for who asks one node about the
// whole mesh. Who scrapes each node has the same as counters and histograms of
// requests and of the grid, of which a server makes rates; as gauges at /metrics
// they would be there twice.

func callFamilies() []family {
	api := func(name, unit, help string, of func(*APICalls) float64) family {
		return family{subsystem: "api", name: "gridloom_api_" + name, unit: unit, help: help,
			values: func(r *Resources, emit func(Gauge, ...label)) {
				for i := range r.APIs {
					a := &r.APIs[i]
					emit(Gauge{Current: of(a)}, label{"api", a.Name}, label{"proto", a.Proto})
				}
			}}
	}
	return append([]family{
		api("requests_per_second", "{request}/{s}", "Requests of the API that ended, a second.", func(a *APICalls) float64 { return a.RequestsPerSecond }),
		api("client_errors_per_second", "{request}/{s}", "Requests of the API that ended with a 4xx or its like, a second.", func(a *APICalls) float64 { return a.ClientErrorsPerSecond }),
		api("server_errors_per_second", "{request}/{s}", "Requests of the API that ended with a 5xx or its like, a second.", func(a *APICalls) float64 { return a.ServerErrorsPerSecond }),
		api("ttfb_p50_seconds", "s", "Median time to first byte of the last ten seconds, at most a quarter off.", func(a *APICalls) float64 { return a.TTFBP50Seconds }),
		api("ttfb_p99_seconds", "s", "99th percentile of the time to first byte of the last ten seconds, at most a quarter off.", func(a *APICalls) float64 { return a.TTFBP99Seconds }),
	}, peerFamilies()...)
}

func peerFamilies() []family {
	peer := func(name, unit, help string, of func(*Peer) float64) family {
		return family{subsystem: "peer", name: "gridloom_peer_" + name, unit: unit, help: help,
			values: func(r *Resources, emit func(Gauge, ...label)) {
				for i := range r.Peers {
					p := &r.Peers[i]
					emit(Gauge{Current: of(p)}, label{"peer", p.Node})
				}
			}}
	}
	sessions := peer("sessions_total", "{session}", "Sessions with the peer that came up since the node's start.", func(p *Peer) float64 { return float64(p.Sessions) })
	sessions.counter = true
	return []family{
		peer("up", "1", "Whether a session with the peer is up, 1 or 0.", func(p *Peer) float64 {
			if p.Up {
				return 1
			}
			return 0
		}),
		peer("rtt_seconds", "s", "Round trip of the last ping to the peer; 0 before the first.", func(p *Peer) float64 { return p.RTTSeconds }),
		peer("received_bytes_per_second", "{By}/{s}", "Bytes received from the peer by the grid, a second.", func(p *Peer) float64 { return p.ReceivedBytesPerSecond }),
		peer("sent_bytes_per_second", "{By}/{s}", "Bytes sent to the peer by the grid, a second.", func(p *Peer) float64 { return p.SentBytesPerSecond }),
		peer("received_messages_per_second", "{message}/{s}", "Messages received from the peer, a second.", func(p *Peer) float64 { return p.ReceivedMessagesPerSecond }),
		peer("sent_messages_per_second", "{message}/{s}", "Messages sent to the peer, a second.", func(p *Peer) float64 { return p.SentMessagesPerSecond }),
		peer("queued_bytes", "By", "Bytes waiting to be written to the peer.", func(p *Peer) float64 { return float64(p.QueuedBytes) }),
		peer("calls_out", "{call}", "Calls to the peer in flight.", func(p *Peer) float64 { return float64(p.CallsOut) }),
		peer("calls_in", "{call}", "Calls of the peer being served.", func(p *Peer) float64 { return float64(p.CallsIn) }),
		sessions,
	}
}

// textFamilies are those of WriteResources.
func textFamilies() []family { return append(families(), callFamilies()...) }

// ResourceOnly lists the metrics that WriteResources alone has.
func ResourceOnly() []Instrument {
	var all []Instrument
	for _, f := range callFamilies() {
		kind := "gauge"
		if f.counter {
			kind = "counter"
		}
		all = append(all, Instrument{Kind: kind, Unit: f.unit, Description: f.help, Series: f.name, Resource: true})
	}
	return all
}
