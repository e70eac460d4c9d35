// Command producer sends events, one JSON object a line of stdin: go run . BROKERS < events.ndjson.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"log"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

var topics = map[string]string{"impression": "ad.impressions", "click": "ad.clicks"}

type event struct {
	EventType string `json:"event_type"`
	UserID    string `json:"user_id"`
	IP        string `json:"ip"`
}

func main() {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Args[1], ",")...),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2 of the key, as Java's
		kgo.RequiredAcks(kgo.AllISRAcks()),                   // franz-go is idempotent unless told otherwise
		kgo.ProducerBatchCompression(kgo.ZstdCompression()),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx := context.Background()
	var delivery kgo.FirstErrPromise
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		line := bytes.Clone(lines.Bytes())
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			log.Fatal(err)
		}
		key := e.UserID
		if key == "" {
			key = e.IP
		}
		record := &kgo.Record{Topic: topics[e.EventType], Key: []byte(key), Value: line}
		client.Produce(ctx, record, delivery.Promise())
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
	// Waits for every event. If one failed, send the events again, with the same event_id: adledger counts them once.
	if err := delivery.Err(); err != nil {
		log.Fatal(err)
	}
}
