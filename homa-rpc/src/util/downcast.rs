//! Recognising a concrete type behind a generic parameter.

use std::any::Any;

/// `value` itself, if `T` and `U` are the same type; else gives it back.
///
/// Lets code that is generic over any body take our own [`Body`](crate::Body) without polling it.
pub(crate) fn try_cast<T: 'static, U: 'static>(value: T) -> Result<U, T> {
    let mut value = Some(value);
    if let Some(same) = (&mut value as &mut dyn Any).downcast_mut::<Option<U>>()
        && let Some(same) = same.take()
    {
        return Ok(same);
    }
    match value {
        Some(value) => Err(value),
        None => unreachable!("only a successful cast empties the option"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cast_to_its_own_type_only() {
        assert_eq!(try_cast::<u8, u8>(3), Ok(3));
        assert_eq!(try_cast::<u8, i8>(3), Err(3));
    }
}
