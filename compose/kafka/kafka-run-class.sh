#!/bin/sh
# In the stand-in image: what the script of this name does in Apache Kafka's own distribution.
exec java ${KAFKA_HEAP_OPTS:--Xmx1g} ${KAFKA_JVM_PERFORMANCE_OPTS:-} -Djava.awt.headless=true \
  -Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn \
  -Dorg.slf4j.simpleLogger.showDateTime=true -cp '/opt/kafka/libs/*' "$@"
