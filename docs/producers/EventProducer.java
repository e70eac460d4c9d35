import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Sends events, one JSON object a line of stdin: java EventProducer BROKERS < events.ndjson. */
public class EventProducer {
    static final Map<String, String> TOPICS = Map.of("impression", "ad.impressions", "click", "ad.clicks");

    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", args[0],
            "enable.idempotence", true, // retries neither repeat nor reorder events
            "acks", "all",
            "compression.type", "zstd",
            "linger.ms", 20,
            "key.serializer", ByteArraySerializer.class,
            "value.serializer", ByteArraySerializer.class); // no partitioner.class: Java's own is murmur2 of the key
        AtomicReference<Exception> failed = new AtomicReference<>();
        ObjectMapper json = new ObjectMapper();
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (var producer = new KafkaProducer<byte[], byte[]>(config)) {
            for (String line; (line = lines.readLine()) != null; ) {
                JsonNode event = json.readTree(line);
                String user = event.get("user_id").asText();
                String key = user.isEmpty() ? event.get("ip").asText() : user;
                producer.send(
                    new ProducerRecord<>(
                        TOPICS.get(event.get("event_type").asText()),
                        key.getBytes(StandardCharsets.UTF_8),
                        line.getBytes(StandardCharsets.UTF_8)),
                    (metadata, error) -> failed.compareAndSet(null, error));
            }
        } // close() waits until every event is delivered or has failed
        if (failed.get() != null) { // send the events again, with the same event_id: adledger counts them once
            throw failed.get();
        }
    }
}
