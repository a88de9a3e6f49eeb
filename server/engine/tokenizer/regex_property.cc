#include "server/engine/tokenizer/regex_property.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "loader/printable.h"

namespace nibble {
namespace {

struct NamedItems {
  absl::string_view name;   // In lower case, without '_'.
  absl::string_view items;  // Between PCRE2's brackets.
};

// Unicode's long names of the general categories (PropertyValueAliases.txt, gc), which PCRE2 10.42
// does not know, and Oniguruma's names of POSIX's classes.
constexpr auto kNamedItems = std::to_array<NamedItems>({
    {"letter", "\\p{L}"},
    {"casedletter", "\\p{Lu}\\p{Ll}\\p{Lt}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"combiningmark", "\\p{M}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"},
    {"enclosingmark", "\\p{Me}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"punctuation", "\\p{P}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"openpunctuation", "\\p{Ps}"},
    {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"otherpunctuation", "\\p{Po}"},
    {"symbol", "\\p{S}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"separator", "\\p{Z}"},
    {"spaceseparator", "\\p{Zs}"},
    {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"other", "\\p{C}"},
    {"control", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"surrogate", "\\p{Cs}"},
    {"privateuse", "\\p{Co}"},
    {"unassigned", "\\p{Cn}"},
    {"alpha", "\\p{Alphabetic}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"upper", "\\p{Uppercase}"},
    {"lower", "\\p{Lowercase}"},
    {"digit", "\\p{Nd}"},
    {"punct", "\\p{P}"},
    {"posixpunct", "\\p{P}\\p{S}"},
    {"cntrl", "\\p{Cc}"},
    {"blank", "\\p{Zs}\\x{9}"},
    {"xdigit", "0-9A-Fa-f"},
    {"ascii", "\\x{0}-\\x{7f}"},
    {"any", "\\x{0}-\\x{10ffff}"},
});

// A category's short name (L, Lu) means it and no script.
bool IsCategory(absl::string_view name) {
  return name.size() == 1 ||
         (name.size() == 2 && absl::string_view("cflmnpsz").find(name[0]) != name.npos);
}

bool Compiles(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* const code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

}  // namespace

absl::StatusOr<CharacterSet> PropertySet(absl::string_view name) {
  std::string plain;
  for (const char c : name) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      plain += absl::ascii_tolower(static_cast<unsigned char>(c));
    } else if (c != ' ' && c != '-' && c != '_') {
      return absl::UnimplementedError(absl::StrCat("the property ", Printable(name)));
    }
  }
  if (plain == "space" || plain == "whitespace") {
    return SpaceSet();
  }
  if (plain == "word") {
    return WordSet();
  }
  for (const NamedItems& named : kNamedItems) {
    if (named.name == plain) {
      return CharacterSet{.items = std::string(named.items)};
    }
  }
  // PCRE2 reads \p{Han} as the script's extensions, too.
  std::string script = absl::StrCat("\\p{sc:", plain, "}");
  if (!IsCategory(plain) && Compiles(script)) {
    return CharacterSet{.items = std::move(script)};
  }
  std::string property = absl::StrCat("\\p{", plain, "}");
  if (plain.empty() || !Compiles(property)) {
    return absl::UnimplementedError(absl::StrCat("the property ", Printable(name)));
  }
  return CharacterSet{.items = std::move(property)};
}

absl::StatusOr<CharacterSet> PosixSet(absl::string_view name) {
  if (name == "punct") {
    return PropertySet("posixpunct");
  }
  if (name == "word") {
    return BracketedWordSet();
  }
  return PropertySet(name);
}

}  // namespace nibble
