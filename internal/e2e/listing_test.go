package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// listed lists the bucket by REST, in pages through one node after the other, and
// compares with the keys that are in it.
func listed(t *testing.T, m meshUnderTest, keys []string) {
	t.Helper()
	middle := keys[len(keys)/2]
	folder := middle[:strings.LastIndex(middle, "/")+1]
	for _, q := range []url.Values{
		{"pageSize": {"17"}},
		{"pageSize": {"17"}, "startAfter": {middle}},
		{"prefix": {folder}, "delimiter": {"/"}, "pageSize": {"3"}},
		{"prefix": {folder}, "delimiter": {"/"}, "start_after": {middle}, "page_size": {"3"}},
		{"delimiter": {"/"}, "pageSize": {"2"}},
	} {
		var want, got []string
		after := q.Get("startAfter") + q.Get("start_after")
		for _, key := range keys {
			rest, has := strings.CutPrefix(key, q.Get("prefix"))
			if !has || key <= after {
				continue
			}
			if before, _, folded := strings.Cut(rest, "/"); folded && q.Has("delimiter") {
				key = q.Get("prefix") + before + "/"
			}
			want = append(want, key)
		}
		want = slices.Compact(want)
		pages := 0
		for token := "first"; token != ""; pages++ {
			page := restPage(t, m, 1+pages%3, q)
			q.Set("pageToken", page.NextPageToken)
			token = page.NextPageToken
			here := page.CommonPrefixes
			for _, o := range page.Objects {
				here = append(here, o.Key)
			}
			slices.Sort(here)
			got = append(got, here...)
		}
		if !slices.Equal(got, want) || len(want) > 17 && pages < 2 {
			t.Errorf("%s: %d pages of %q, want %q", q.Encode(), pages, got, want)
		}
	}
}

// restListing is a page as JSON.
type restListing struct {
	Objects        []struct{ Key string }
	CommonPrefixes []string
	NextPageToken  string
}

func restPage(t *testing.T, m meshUnderTest, node int, q url.Values) (page restListing) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m.http(node)+"/v1/buckets/real/objects?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+m.key)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s, %v", q.Encode(), resp.Status, b, err)
	}
	if err := json.Unmarshal(b, &page); err != nil {
		t.Fatal(err)
	}
	return page
}
