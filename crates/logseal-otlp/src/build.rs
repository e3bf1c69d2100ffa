//! Arrow arrays while they are made, row by row.
//!
//! Unlike arrow's own builders they keep values alone and where rows without one lie between them: an empty cell costs nothing until the column is
//! finished, and then as little memory as it can, for of a table with hundreds of attributes most cells are empty. Texts are not validated one by
//! one but once, all of a column together, when it is finished: for short texts that is a small part of the cost.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanBuilder, PrimitiveArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;

/// Rows without a value, between those with one.
#[derive(Debug, Default)]
struct Gaps {
    /// How many values come before each gap, and how many rows it has.
    gaps: Vec<(u32, u32)>,
    rows: usize,
}

/// Some rows of a finished column that follow each other.
enum Run {
    /// The values of this range.
    Values(Range<usize>),
    /// So many rows without one.
    Nulls(usize),
}

impl Gaps {
    /// `count` rows with values begin at `row`, before which there are `values`; rows that no one spoke of have none.
    #[inline]
    fn values_from(&mut self, row: usize, count: usize, values: usize) {
        if self.rows != row {
            self.skip(row, values);
        }
        self.rows = row + count;
    }

    #[cold]
    fn skip(&mut self, row: usize, values: usize) {
        // A chunk has far fewer rows than 2^32: its text offsets have 31 bits.
        let [values, rows] = [values, row - self.rows].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        self.gaps.push((values, rows));
    }

    /// The rows end at `rows`, and `values` of them have values; whether any has none.
    fn close(&mut self, rows: usize, values: usize) -> bool {
        if self.rows != rows {
            self.skip(rows, values);
        }
        let any = !self.gaps.is_empty();
        // The values after the last gap.
        self.gaps.push((u32::try_from(values).unwrap_or(u32::MAX), 0));
        any
    }

    /// All rows, once they are closed.
    fn runs(&self) -> impl Iterator<Item = Run> {
        let mut before = 0;
        self.gaps.iter().flat_map(move |(values, nulls)| {
            let run = before..*values as usize;
            before = run.end;
            [Run::Values(run), Run::Nulls(*nulls as usize)]
        })
    }

    /// Which rows have values.
    fn mask(&self, rows: usize) -> Option<NullBuffer> {
        let mut mask = NullBufferBuilder::new(rows);
        for run in self.runs() {
            match run {
                Run::Values(values) => mask.append_n_non_nulls(values.len()),
                Run::Nulls(nulls) => mask.append_n_nulls(nulls),
            }
        }
        mask.build()
    }
}

/// `values` in memory of about their size, if they have more than twice as much.
fn fitting<T>(mut values: Vec<T>) -> Vec<T> {
    if values.capacity() / 2 > values.len() {
        values.shrink_to_fit();
    }
    values
}

/// A column of texts or of bytes.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Where each value begins, and at last where the last one ends.
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    gaps: Gaps,
}

/// An offset. Beyond what 32 bits reach, which the limits of a scan do not allow, the array is refused when it is finished.
#[inline]
fn offset(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

impl Texts {
    /// No rows yet; with memory for `rows` values of `bytes` bytes together.
    pub(crate) fn new(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, bytes: Vec::with_capacity(bytes), gaps: Gaps::default() }
    }

    /// Puts `text` into row `row`, which is beyond all that have one.
    #[inline]
    pub(crate) fn put(&mut self, row: usize, text: &[u8]) {
        self.gaps.values_from(row, 1, self.offsets.len() - 1);
        self.bytes.extend_from_slice(text);
        self.offsets.push(offset(self.bytes.len()));
    }

    /// Puts `text` into `count` rows from `row` on.
    pub(crate) fn put_n(&mut self, row: usize, count: usize, text: &[u8]) {
        self.gaps.values_from(row, count, self.offsets.len() - 1);
        let start = self.bytes.len();
        let total = count.saturating_mul(text.len());
        self.bytes.reserve(total);
        self.bytes.extend_from_slice(if count > 0 { text } else { &[] });
        // Twice as much each time: a copy for each row would take longer to call than to do.
        while self.bytes.len() < start + total {
            let copied = self.bytes.len() - start;
            self.bytes.extend_from_within(start..start + copied.min(total - copied));
        }
        self.offsets.extend((1..=count).map(|rows| offset(start + rows * text.len())));
    }

    fn parts(self, rows: usize) -> (OffsetBuffer<i32>, Buffer, Option<NullBuffer>) {
        let Self { mut offsets, bytes, mut gaps } = self;
        let mut nulls = None;
        if gaps.close(rows, offsets.len() - 1) {
            nulls = gaps.mask(rows);
            let mut spread = Vec::with_capacity(rows + 1);
            spread.push(0);
            for run in gaps.runs() {
                match run {
                    Run::Values(values) => spread.extend_from_slice(&offsets[values.start + 1..=values.end]),
                    Run::Nulls(nulls) => spread.resize(spread.len() + nulls, spread.last().copied().unwrap_or(0)),
                }
            }
            offsets = spread;
        }
        let (offsets, bytes) = (ScalarBuffer::from(fitting(offsets)), Buffer::from_vec(fitting(bytes)));
        (OffsetBuffer::new(offsets), bytes, nulls)
    }

    /// The column of `rows` rows.
    ///
    /// # Errors
    ///
    /// When not every row is UTF-8.
    pub(crate) fn finish(self, rows: usize) -> Result<ArrayRef, ArrowError> {
        let (offsets, bytes, nulls) = self.parts(rows);
        Ok(Arc::new(StringArray::try_new(offsets, bytes, nulls)?))
    }

    /// The column of `rows` rows, as bytes.
    ///
    /// # Errors
    ///
    /// When it has more bytes than 32-bit offsets reach.
    pub(crate) fn finish_bytes(self, rows: usize) -> Result<ArrayRef, ArrowError> {
        let (offsets, bytes, nulls) = self.parts(rows);
        Ok(Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?))
    }
}

/// A column of numbers or times.
#[derive(Debug)]
pub(crate) struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    gaps: Gaps,
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    /// No rows yet; with memory for `rows` values.
    pub(crate) fn new(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows), gaps: Gaps::default() }
    }

    /// Puts `value` into row `row`, which is beyond all that have one.
    #[inline]
    pub(crate) fn put(&mut self, row: usize, value: T::Native) {
        self.gaps.values_from(row, 1, self.values.len());
        self.values.push(value);
    }

    /// Puts `value` into `count` rows from `row` on.
    pub(crate) fn put_n(&mut self, row: usize, count: usize, value: T::Native) {
        self.gaps.values_from(row, count, self.values.len());
        self.values.resize(self.values.len() + count, value);
    }

    /// The column of `rows` rows.
    pub(crate) fn finish(self, rows: usize) -> PrimitiveArray<T> {
        let Self { mut values, mut gaps } = self;
        let mut nulls = None;
        if gaps.close(rows, values.len()) {
            nulls = gaps.mask(rows);
            let mut spread = Vec::with_capacity(rows);
            for run in gaps.runs() {
                match run {
                    Run::Values(run) => spread.extend_from_slice(&values[run]),
                    Run::Nulls(nulls) => spread.resize(spread.len() + nulls, T::Native::default()),
                }
            }
            values = spread;
        }
        PrimitiveArray::new(ScalarBuffer::from(fitting(values)), nulls)
    }
}

/// A column of truth values.
#[derive(Debug)]
pub(crate) struct Bools {
    builder: BooleanBuilder,
    rows: usize,
}

impl Bools {
    /// No rows yet; with memory for `rows`.
    pub(crate) fn new(rows: usize) -> Self {
        Self { builder: BooleanBuilder::with_capacity(rows), rows: 0 }
    }

    fn pad(&mut self, row: usize) {
        if self.rows < row {
            self.builder.append_nulls(row - self.rows);
            self.rows = row;
        }
    }

    /// Puts `value` into `count` rows from `row` on.
    pub(crate) fn put_n(&mut self, row: usize, count: usize, value: bool) {
        self.pad(row);
        self.builder.append_n(count, value);
        self.rows += count;
    }

    /// The column of `rows` rows.
    pub(crate) fn finish(mut self, rows: usize) -> ArrayRef {
        self.pad(rows);
        Arc::new(self.builder.finish())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array as _, AsArray, BooleanArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn rows_that_were_left_out_are_null() {
        let mut texts = Texts::new(0, 0);
        texts.put(2, b"a");
        texts.put(3, "\u{e9}".as_bytes());
        texts.put_n(5, 2, b"xy");
        let expected = [None, None, Some("a"), Some("\u{e9}"), None, Some("xy"), Some("xy"), None];
        assert_eq!(texts.finish(8).unwrap().as_string::<i32>(), &StringArray::from(expected.to_vec()));

        let mut numbers = Numbers::<Int64Type>::new(0);
        numbers.put(1, 7);
        numbers.put_n(2, 2, -1);
        assert_eq!(numbers.finish(5), Int64Array::from(vec![None, Some(7), Some(-1), Some(-1), None]));

        let mut bools = Bools::new(0);
        bools.put_n(1, 1, true);
        bools.put_n(3, 1, false);
        let expected = BooleanArray::from(vec![None, Some(true), None, Some(false)]);
        assert_eq!(bools.finish(4).as_boolean(), &expected);

        assert_eq!(Texts::new(0, 0).finish(3).unwrap().null_count(), 3);
        assert!(rows(&[b"a", b"b"]).finish(2).unwrap().nulls().is_none());
        let mut full = Numbers::<Int64Type>::new(0);
        full.put_n(0, 2, 1);
        assert!(full.finish(2).nulls().is_none());
        assert_eq!(Texts::new(0, 0).finish(0).unwrap().len(), 0);
    }

    fn rows(rows: &[&[u8]]) -> Texts {
        let mut texts = Texts::new(0, 0);
        rows.iter().enumerate().for_each(|(row, text)| texts.put(row, text));
        texts
    }

    #[test]
    fn a_column_is_text_only_when_each_row_is() {
        assert!(rows(&[b"a", &[0xFF]]).finish(2).is_err());
        // Halves of one character in two rows: together they would be text.
        assert!(rows(&[&[0xC3], &[0xA9]]).finish(2).is_err());
        assert!(rows(&[&[0xC3], &[0xA9]]).finish_bytes(2).is_ok());
    }
}
