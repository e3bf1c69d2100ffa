//! Arrow arrays while they are made, row by row.
//!
//! Unlike arrow's own builders they know no row that was left out until the next value comes, so that an empty cell costs nothing, and texts are
//! not validated one by one but once, all of a column together, when it is finished: for short texts that is a small part of the cost.

use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanBuilder, PrimitiveArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;

/// Which rows have no value. Rows with one are only counted when one without comes.
#[derive(Debug)]
struct Nulls(NullBufferBuilder);

impl Nulls {
    fn new(rows: usize) -> Self {
        Self(NullBufferBuilder::new(rows))
    }

    /// All rows up to `first` that were not said to be null have values, and those from there to `end` have none.
    #[cold]
    fn put(&mut self, first: usize, end: usize) {
        self.0.append_n_non_nulls(first - self.0.len());
        self.0.append_n_nulls(end - first);
    }

    /// Nothing when all of `rows` rows have values: what comes later is quicker without a mask.
    fn finish(mut self, rows: usize) -> Option<NullBuffer> {
        self.0.append_n_non_nulls(rows - self.0.len());
        self.0.build()
    }
}

/// A column of texts or of bytes.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Where each row begins, and at last where the last one ends.
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    nulls: Nulls,
}

/// An offset. Beyond what 32 bits reach, which the limits of a scan do not allow, the array is refused when it is finished.
#[inline]
fn offset(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

impl Texts {
    /// No rows yet; with memory for `rows` rows and `bytes` bytes.
    pub(crate) fn new(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, bytes: Vec::with_capacity(bytes), nulls: Nulls::new(rows) }
    }

    /// Makes all rows before `row` exist.
    #[inline]
    fn pad(&mut self, row: usize) {
        let rows = self.offsets.len() - 1;
        if rows < row {
            self.nulls.put(rows, row);
            self.offsets.resize(row + 1, offset(self.bytes.len()));
        }
    }

    /// Puts `text` into row `row`, which is beyond all that have one.
    #[inline]
    pub(crate) fn put(&mut self, row: usize, text: &[u8]) {
        self.pad(row);
        self.bytes.extend_from_slice(text);
        self.offsets.push(offset(self.bytes.len()));
    }

    /// Puts `text` into `count` rows from `row` on.
    pub(crate) fn put_n(&mut self, row: usize, count: usize, text: &[u8]) {
        self.pad(row);
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

    fn parts(mut self, rows: usize) -> (OffsetBuffer<i32>, Buffer, Option<NullBuffer>) {
        self.pad(rows);
        (OffsetBuffer::new(ScalarBuffer::from(self.offsets)), Buffer::from_vec(self.bytes), self.nulls.finish(rows))
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
    nulls: Nulls,
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    /// No rows yet; with memory for `rows`.
    pub(crate) fn new(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows), nulls: Nulls::new(rows) }
    }

    #[inline]
    fn pad(&mut self, row: usize) {
        if self.values.len() < row {
            self.nulls.put(self.values.len(), row);
            self.values.resize(row, T::Native::default());
        }
    }

    /// Puts `value` into row `row`, which is beyond all that have one.
    #[inline]
    pub(crate) fn put(&mut self, row: usize, value: T::Native) {
        self.pad(row);
        self.values.push(value);
    }

    /// Puts `value` into `count` rows from `row` on.
    pub(crate) fn put_n(&mut self, row: usize, count: usize, value: T::Native) {
        self.pad(row);
        self.values.resize(row + count, value);
    }

    /// The column of `rows` rows.
    pub(crate) fn finish(mut self, rows: usize) -> PrimitiveArray<T> {
        self.pad(rows);
        PrimitiveArray::new(ScalarBuffer::from(self.values), self.nulls.finish(rows))
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
