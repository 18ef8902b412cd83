//! The standard details one by one, by the names that they have in tonic-types.

use std::time::Duration;

use prost::{DecodeError, Message, Name};

use super::bad_request::FieldViolation;
use super::help::Link;
use super::precondition_failure::Violation as PreconditionViolation;
use super::quota_failure::Violation as QuotaViolation;
use super::{
    BadRequest, DebugInfo, ErrorDetails, ErrorInfo, Help, LocalizedMessage, PreconditionFailure,
    QuotaFailure, RequestInfo, ResourceInfo, RetryInfo,
};
use crate::message::status::Status;

impl ErrorDetails {
    /// Puts `detail` in the place of those of its type.
    fn set<M: Message + Name>(&mut self, detail: M) -> &mut Self {
        let of_type = M::type_url();
        self.messages.retain(|any| any.type_url != of_type);
        let details = std::mem::take(self);
        *self = details.with(detail);
        self
    }

    /// Changes the detail of a type, which is made if there is none.
    fn change<M: Message + Name + Default>(&mut self, change: impl FnOnce(&mut M)) -> &mut Self {
        let mut detail = self.get().unwrap_or_default();
        change(&mut detail);
        self.set(detail)
    }
}

macro_rules! details {
    ($($detail:ident: $get:ident $get_of_status:ident,)+) => {
        impl ErrorDetails {
            $(#[doc = concat!("The first [`", stringify!($detail), "`], if there is one.")]
            #[must_use]
            pub fn $get(&self) -> Option<$detail> {
                self.get()
            })+
        }

        impl Status {
            $(#[doc = concat!("The first [`", stringify!($detail), "`] of the details, if there is one that can be read.")]
            #[must_use]
            pub fn $get_of_status(&self) -> Option<$detail> {
                self.get_error_details().get()
            })+
        }
    };
}

details! {
    RetryInfo: retry_info get_details_retry_info,
    DebugInfo: debug_info get_details_debug_info,
    QuotaFailure: quota_failure get_details_quota_failure,
    ErrorInfo: error_info get_details_error_info,
    PreconditionFailure: precondition_failure get_details_precondition_failure,
    BadRequest: bad_request get_details_bad_request,
    RequestInfo: request_info get_details_request_info,
    ResourceInfo: resource_info get_details_resource_info,
    Help: help get_details_help,
    LocalizedMessage: localized_message get_details_localized_message,
}

macro_rules! setters {
    ($($doc:literal $with:ident $set:ident($($argument:ident: $type:ty),*) $change:expr;)+) => {
        impl ErrorDetails {
            $(#[doc = concat!("Details with ", $doc, ".")]
            #[must_use]
            pub fn $with($($argument: impl Into<$type>),*) -> Self {
                let mut details = Self::new();
                details.$set($($argument),*);
                details
            }

            #[doc = concat!("Sets or adds ", $doc, ".")]
            pub fn $set(&mut self, $($argument: impl Into<$type>),*) -> &mut Self {
                let change: fn(&mut Self, $($type),*) -> &mut Self = $change;
                change(self, $($argument.into()),*)
            })+
        }
    };
}

setters! {
    "a [`RetryInfo`]: how long to wait"
    with_retry_info set_retry_info(delay: Option<Duration>)
    |details, delay| details.set(delay.map_or_else(RetryInfo::default, RetryInfo::after));

    "a [`DebugInfo`]"
    with_debug_info set_debug_info(stack_entries: Vec<String>, detail: String)
    |details, stack_entries, detail| details.set(DebugInfo { stack_entries, detail });

    "a violation to [`QuotaFailure`]"
    with_quota_failure_violation add_quota_failure_violation(subject: String, description: String)
    |details, subject, description| details.change(|failure: &mut QuotaFailure| {
        failure.violations.push(QuotaViolation { subject, description, ..Default::default() });
    });

    "a violation to [`PreconditionFailure`]"
    with_precondition_failure_violation add_precondition_failure_violation(
        violation_type: String, subject: String, description: String
    )
    |details, violation_type, subject, description| {
        details.change(|failure: &mut PreconditionFailure| {
            failure.violations.push(PreconditionViolation {
                r#type: violation_type,
                subject,
                description,
            });
        })
    };

    "a violation to [`BadRequest`]"
    with_bad_request_violation add_bad_request_violation(field: String, description: String)
    |details, field, description| details.change(|request: &mut BadRequest| {
        let violation = FieldViolation { field, description, ..Default::default() };
        request.field_violations.push(violation);
    });

    "a [`RequestInfo`]"
    with_request_info set_request_info(request_id: String, serving_data: String)
    |details, request_id, serving_data| details.set(RequestInfo { request_id, serving_data });

    "a [`ResourceInfo`]"
    with_resource_info set_resource_info(
        resource_type: String, resource_name: String, owner: String, description: String
    )
    |details, resource_type, resource_name, owner, description| details.set(ResourceInfo {
        resource_type,
        resource_name,
        owner,
        description,
    });

    "a link to [`Help`]"
    with_help_link add_help_link(description: String, url: String)
    |details, description, url| details.change(|help: &mut Help| {
        help.links.push(Link { description, url });
    });

    "a [`LocalizedMessage`]"
    with_localized_message set_localized_message(locale: String, message: String)
    |details, locale, message| details.set(LocalizedMessage { locale, message });
}

impl ErrorDetails {
    /// Details with an [`ErrorInfo`].
    #[must_use]
    pub fn with_error_info(
        reason: impl Into<String>,
        domain: impl Into<String>,
        metadata: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut details = Self::new();
        details.set_error_info(reason, domain, metadata);
        details
    }

    /// Sets an [`ErrorInfo`].
    pub fn set_error_info(
        &mut self,
        reason: impl Into<String>,
        domain: impl Into<String>,
        metadata: impl IntoIterator<Item = (String, String)>,
    ) -> &mut Self {
        self.set(ErrorInfo {
            reason: reason.into(),
            domain: domain.into(),
            metadata: metadata.into_iter().collect(),
        })
    }
}

impl Status {
    /// The details, as [`error_details`](Self::error_details) reads them; none if they cannot be read.
    #[must_use]
    pub fn get_error_details(&self) -> ErrorDetails {
        self.error_details().unwrap_or_default()
    }

    /// The same as [`error_details`](Self::error_details).
    ///
    /// # Errors
    /// If the field holds something else.
    pub fn check_error_details(&self) -> Result<ErrorDetails, DecodeError> {
        self.error_details()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::message::status::Code;

    #[test]
    fn details_are_set_added_to_and_read_by_the_names_of_tonic_types() {
        let mut details = ErrorDetails::with_bad_request_violation("name", "empty");
        let metadata = HashMap::from([("key".to_owned(), "value".to_owned())]);
        details
            .add_bad_request_violation("age", "negative")
            .set_retry_info(Some(Duration::from_secs(1)))
            .set_retry_info(Duration::from_secs(2))
            .set_error_info("WHY", "example.com", metadata)
            .set_localized_message("en", "no");
        assert_eq!(details.as_any().len(), 4);
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);
        let fields: Vec<_> = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(fields.len(), 2);
        assert_eq!((&*fields[0].field, &*fields[1].field), ("name", "age"));
        let delay = status.check_error_details().unwrap().retry_info().unwrap();
        assert_eq!(delay.delay(), Some(Duration::from_secs(2)));
        let info = status.get_details_error_info().unwrap();
        assert_eq!((&*info.reason, &*info.metadata["key"]), ("WHY", "value"));
        assert!(status.get_details_help().is_none());
        let garbage = Status::with_details(Code::Internal, "", vec![0xff]);
        assert_eq!(garbage.get_error_details(), ErrorDetails::new());
        assert!(garbage.check_error_details().is_err());
    }
}
