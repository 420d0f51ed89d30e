// Sends usage, and reads what the ledger booked of it: client BOOTSTRAP REGISTRY NAMESPACE RUN COUNT
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Usage has the fields that this program fills; the schema's defaults stand for the others.
type Usage struct {
	EventID    string    `avro:"event_id"`
	OrgID      string    `avro:"org_id"`
	OccurredAt time.Time `avro:"occurred_at"`
	Operation  string    `avro:"operation"`
	Wallet     *string   `avro:"wallet"`
	CostNanos  *int64    `avro:"cost_nanos"`
}

// Entry has the fields that this program reads.
type Entry struct {
	EventID     string `avro:"event_id"`
	AmountNanos int64  `avro:"amount_nanos"`
}

type registered struct {
	ID     uint32 `json:"id"`
	Schema string `json:"schema"`
}

func main() {
	bootstrap, registry, namespace, run := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	count, err := strconv.Atoi(os.Args[5])
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	send(ctx, bootstrap, registry, namespace, run, count)
	read(ctx, bootstrap, registry, namespace, run, count)
}

func send(ctx context.Context, bootstrap, registry, namespace, run string, count int) {
	topic := namespace + "credits.usage.v1"
	// The subject is the topic's name and "-value".
	latest := ask(registry + "/subjects/" + topic + "-value/versions/latest")
	schema, err := avro.Parse(latest.Schema)
	check(err)
	// The default partitioner of franz-go hashes keys with murmur2, as Java's. (Sarama's and kafka-go's do not.)
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()),
	)
	check(err)
	defer client.Close()
	wallet, cost := "USD", int64(9007199254740993)
	for number := 0; number < count; number++ {
		org := fmt.Sprintf("org-%d", number%12)
		body, err := avro.Marshal(schema, Usage{
			fmt.Sprintf("%s-%d", run, number), org, time.Now(), "chat.completion", &wallet, &cost,
		})
		check(err)
		// Framing: byte 0, the schema's id in 4 bytes, the Avro body.
		value := append(binary.BigEndian.AppendUint32([]byte{0}, latest.ID), body...)
		record := &kgo.Record{Topic: topic, Key: []byte(org), Value: value}
		check(client.ProduceSync(ctx, record).FirstErr())
	}
}

func read(ctx context.Context, bootstrap, registry, namespace, run string, count int) {
	// Without ReadCommitted, entries of a transaction that was aborted would count.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumerGroup(namespace+"credits-follower-"+run),
		kgo.ConsumeTopics(namespace+"credits.ledger.v1"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)
	check(err)
	defer client.Close()
	schemas := map[uint32]avro.Schema{}
	for count > 0 {
		fetches := client.PollFetches(ctx)
		check(fetches.Err())
		fetches.EachRecord(func(record *kgo.Record) {
			id := binary.BigEndian.Uint32(record.Value[1:5])
			if schemas[id] == nil {
				parsed, err := avro.Parse(ask(fmt.Sprintf("%s/schemas/ids/%d", registry, id)).Schema)
				check(err)
				schemas[id] = parsed
			}
			var entry Entry
			check(avro.Unmarshal(schemas[id], record.Value[5:], &entry))
			if strings.HasPrefix(entry.EventID, run+"-") {
				fmt.Printf("{\"event_id\": %q, \"amount_nanos\": \"%d\"}\n", entry.EventID, entry.AmountNanos)
				count--
			}
		})
	}
}

func ask(address string) registered {
	answer, err := http.Get(address)
	check(err)
	defer answer.Body.Close()
	var found registered
	check(json.NewDecoder(answer.Body).Decode(&found))
	return found
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
