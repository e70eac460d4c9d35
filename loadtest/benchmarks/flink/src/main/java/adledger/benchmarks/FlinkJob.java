package adledger.benchmarks;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFilterFunction;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.CloseableIterator;
import org.apache.flink.util.Collector;

/**
 * The job on Flink, as its documentation writes it: a KafkaSource, the first of each event id kept by keyed state with a
 * time to live, tumbling event-time windows of a minute for each publisher.
 *
 * <p>Arguments: servers, topic, records in the topic, folder for what it found.
 */
public final class FlinkJob {
  private static final Duration OUT_OF_ORDER_MAX = Duration.ofMinutes(10);
  private static final AtomicLong READ = new AtomicLong(); // the mini-cluster is this process

  private static long markEvents;
  private static volatile double markCpu;
  private static volatile long markNanos;

  /** An event, as Flink's POJO serializer wants it: public fields and a constructor without arguments. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  public static class Event {
    @JsonProperty("event_type") public String eventType;
    @JsonProperty("event_id") public String eventId;
    @JsonProperty("event_time") public long eventTime;
    @JsonProperty("publisher_id") public long publisherId;
    @JsonProperty("price_micros") public long priceMicros;
  }

  /** Counts and money of a publisher's minute. */
  public static class Minute {
    public long publisherId;
    public long minute;
    public long impressions;
    public long clicks;
    public long nanos;
  }

  /** Parses records, and marks the time when a quarter of them was read. */
  public static class Parse extends AbstractDeserializationSchema<Event> {
    private transient ObjectReader reader;

    @Override
    public void open(InitializationContext context) {
      reader = new ObjectMapper().readerFor(Event.class);
    }

    @Override
    public Event deserialize(byte[] message) throws IOException {
      if (READ.incrementAndGet() == markEvents) {
        markCpu = cpuSeconds();
        markNanos = System.nanoTime();
      }
      return reader.readValue(message);
    }
  }

  /** Lets the first event of a key through. */
  public static class First extends RichFilterFunction<Event> {
    private transient ValueState<Boolean> seen;

    @Override
    public void open(OpenContext context) {
      ValueStateDescriptor<Boolean> descriptor = new ValueStateDescriptor<>("seen", Boolean.class);
      descriptor.enableTimeToLive(StateTtlConfig.newBuilder(Duration.ofHours(24)).build());
      seen = getRuntimeContext().getState(descriptor);
    }

    @Override
    public boolean filter(Event event) throws Exception {
      if (seen.value() != null) {
        return false;
      }
      seen.update(true);
      return true;
    }
  }

  /** Adds up a window. */
  public static class Sum implements AggregateFunction<Event, Minute, Minute> {
    @Override
    public Minute createAccumulator() {
      return new Minute();
    }

    @Override
    public Minute add(Event event, Minute sum) {
      if (event.eventType.equals("click")) {
        sum.clicks++;
        sum.nanos += event.priceMicros * 1000;
      } else {
        sum.impressions++;
        sum.nanos += event.priceMicros;
      }
      return sum;
    }

    @Override
    public Minute getResult(Minute sum) {
      return sum;
    }

    @Override
    public Minute merge(Minute a, Minute b) {
      a.impressions += b.impressions;
      a.clicks += b.clicks;
      a.nanos += b.nanos;
      return a;
    }
  }

  /** Adds which publisher and minute a sum is of. */
  public static class Named extends ProcessWindowFunction<Minute, Minute, Long, TimeWindow> {
    @Override
    public void process(Long publisher, Context context, Iterable<Minute> sums, Collector<Minute> out) {
      Minute sum = sums.iterator().next();
      sum.publisherId = publisher;
      sum.minute = context.window().getStart() / 1000;
      out.collect(sum);
    }
  }

  private static double cpuSeconds() {
    var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    return system.getProcessCpuTime() / 1e9;
  }

  public static void main(String[] args) throws Exception {
    String servers = args[0];
    String topic = args[1];
    long events = Long.parseLong(args[2]);
    Path folder = Path.of(args[3]);
    markEvents = events / 4;

    StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
    env.getConfig().enableObjectReuse(); // nothing here keeps an object that it passed on
    KafkaSource<Event> source =
        KafkaSource.<Event>builder()
            .setBootstrapServers(servers)
            .setTopics(topic)
            .setGroupId("contestant-flink")
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setBounded(OffsetsInitializer.latest())
            .setValueOnlyDeserializer(new Parse())
            .build();
    WatermarkStrategy<Event> watermarks =
        WatermarkStrategy.<Event>forBoundedOutOfOrderness(OUT_OF_ORDER_MAX)
            .withTimestampAssigner((event, kafkaTime) -> event.eventTime);
    DataStream<Minute> minutes =
        env.fromSource(source, watermarks, "events")
            .keyBy(event -> event.eventId)
            .filter(new First())
            .keyBy(event -> event.publisherId)
            .window(TumblingEventTimeWindows.of(Duration.ofMinutes(1)))
            .aggregate(new Sum(), new Named());

    try (CloseableIterator<Minute> found = minutes.executeAndCollect();
        BufferedWriter out = Files.newBufferedWriter(folder.resolve("found.tsv"))) {
      while (found.hasNext()) {
        Minute m = found.next();
        out.write(m.publisherId + "\t" + m.minute + "\t" + m.impressions + "\t" + m.clicks + "\t" + m.nanos + "\n");
      }
    }
    String report =
        String.format(
            java.util.Locale.ROOT,
            "{\"events\": %d, \"mark_events\": %d, \"steady_cpu_seconds\": %.6f, \"steady_seconds\": %.6f}",
            READ.get(), markEvents, cpuSeconds() - markCpu, (System.nanoTime() - markNanos) / 1e9);
    Files.writeString(folder.resolve("report.json"), report);
    System.exit(0);
  }
}
