// Sends usage, and reads what the ledger booked of it: java -cp 'lib/*' Client.java BOOTSTRAP REGISTRY NAMESPACE RUN COUNT
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class Client {
    static String bootstrap, registry, namespace, run;

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        registry = arguments[1];
        namespace = arguments[2];
        run = arguments[3];
        int count = Integer.parseInt(arguments[4]);
        send(count);
        read(count);
    }

    static void send(int count) throws Exception {
        String topic = namespace + "credits.usage.v1";
        // The subject is the topic's name and "-value".
        JsonNode latest = ask("/subjects/" + topic + "-value/versions/latest");
        Schema schema = new Schema.Parser().parse(latest.get("schema").asText());
        // Java's default partitioner is murmur2: nothing to set.
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", bootstrap, "acks", "all", "enable.idempotence", true, "compression.type", "lz4");
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int number = 0; number < count; number++) {
                String org = "org-" + number % 12;
                GenericRecord usage = new GenericRecordBuilder(schema)
                    .set("event_id", run + "-" + number).set("org_id", org)
                    .set("occurred_at", System.currentTimeMillis() * 1000).set("operation", "chat.completion")
                    .set("wallet", "USD").set("cost_nanos", 9_007_199_254_740_993L).build();
                sent.add(producer.send(new ProducerRecord<>(topic, org, framed(latest.get("id").asInt(), usage))));
            }
            for (Future<RecordMetadata> each : sent) each.get();
        }
    }

    static byte[] framed(int id, GenericRecord record) throws Exception {
        var bytes = new ByteArrayOutputStream();
        var head = new DataOutputStream(bytes);
        head.writeByte(0); // framing: byte 0, the schema's id in 4 bytes, the Avro body
        head.writeInt(id);
        BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(bytes, null);
        new GenericDatumWriter<GenericRecord>(record.getSchema()).write(record, encoder);
        encoder.flush();
        return bytes.toByteArray();
    }

    static void read(int count) throws Exception {
        // Without read_committed, entries of a transaction that was aborted would count.
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", bootstrap, "group.id", namespace + "credits-follower-" + run,
            "isolation.level", "read_committed", "auto.offset.reset", "earliest", "enable.auto.commit", false);
        Map<Integer, Schema> schemas = new HashMap<>();
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(namespace + "credits.ledger.v1"));
            for (long end = System.currentTimeMillis() + 90_000; count > 0; ) {
                if (System.currentTimeMillis() > end) throw new IllegalStateException(count + " entries are missing");
                for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    int id = ByteBuffer.wrap(record.value()).getInt(1);
                    if (!schemas.containsKey(id)) {
                        schemas.put(id, new Schema.Parser().parse(ask("/schemas/ids/" + id).get("schema").asText()));
                    }
                    var decoder = DecoderFactory.get().binaryDecoder(record.value(), 5, record.value().length - 5, null);
                    GenericRecord entry = new GenericDatumReader<GenericRecord>(schemas.get(id)).read(null, decoder);
                    if (entry.get("event_id").toString().startsWith(run + "-")) {
                        System.out.println("{\"event_id\": \"" + entry.get("event_id") + "\", \"amount_nanos\": \""
                            + entry.get("amount_nanos") + "\"}");
                        count--;
                    }
                }
            }
        }
    }

    static JsonNode ask(String path) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(registry + path)).build();
        HttpResponse<String> answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new IllegalStateException(path + ": " + answer.statusCode());
        return new ObjectMapper().readTree(answer.body());
    }
}
