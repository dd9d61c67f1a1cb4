//! The OpenMetrics page as it is written, metric by metric.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeLabelSet, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use crate::state::Durations;

/// A metric's name, its help, and where its value is.
pub(super) type Named<T> = (&'static str, &'static str, fn(&T) -> u64);

pub(super) fn floats<L>(rows: impl Iterator<Item = (L, u64)>) -> impl Iterator<Item = (L, f64)> {
    rows.map(|(labels, value)| (labels, value as f64))
}

/// No labels.
pub(super) const NONE: [(&str, &str); 0] = [];
pub(super) const SECONDS: Option<Unit> = Some(Unit::Seconds);
pub(super) const BYTES: Option<Unit> = Some(Unit::Bytes);

/// The page as it is written. A metric without rows is left out.
pub(super) struct Page<'e>(pub(super) DescriptorEncoder<'e>);

impl Page<'_> {
    pub(super) fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str); 1]) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(labels)
    }

    pub(super) fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.rows(name, help, unit, MetricType::Gauge, rows, |encoder, value| encoder.encode_gauge(&value))
    }

    pub(super) fn counter<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        self.rows(name, help, unit, MetricType::Counter, rows, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    pub(super) fn histogram<'d, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, &'d Durations)>,
    ) -> fmt::Result {
        self.rows(name, help, SECONDS, MetricType::Histogram, rows, |encoder, durations| {
            let Durations { sum_seconds, count, buckets, .. } = durations;
            encoder.encode_histogram::<NoLabelSet>(*sum_seconds, *count, buckets, None)
        })
    }

    fn rows<L: EncodeLabelSet, V>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        kind: MetricType,
        rows: impl IntoIterator<Item = (L, V)>,
        mut write: impl FnMut(&mut MetricEncoder, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in rows {
            // Without labels the name stands alone, not before an empty pair of braces.
            match size_of_val(&labels) {
                0 => write(&mut encoder, value)?,
                _ => write(&mut encoder.encode_family(&labels)?, value)?,
            }
        }
        Ok(())
    }
}
