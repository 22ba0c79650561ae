// From a file to the square that a network takes, as engine/pictures/photo.py and preprocess.py do it.
#pragma once

#include <map>
#include <opencv2/core.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using Bytes = std::vector<unsigned char>;

// A picture that cannot be screened: a code of Funduscope's, and the same as a sentence.
struct Refused : std::runtime_error {
    Refused(std::string code, const std::string& reason) : std::runtime_error(reason), code(std::move(code)) {}
    std::string code;
};

// It can be read, but is not one to screen.
struct Ungradable : Refused {
    using Refused::Refused;
};

// How a photo becomes a square; part of the model's contract.
struct Geometry {
    int size;           // of the square, px
    int fov_threshold;  // a pixel is lit where its brightest channel is above it
    double diameters = 0;  // of the disc that the square is wide, which lies around it then; 0: it shows all
};

// Where the square lies in the photo: x_square = scale_x * x_photo + offset_x, pixel centres at integers.
struct Placement {
    double scale_x, scale_y, offset_x, offset_y;
    cv::Point2d to_photo(double x, double y) const { return {(x - offset_x) / scale_x, (y - offset_y) / scale_y}; }
    cv::Point2d to_square(double x, double y) const { return {scale_x * x + offset_x, scale_y * y + offset_y}; }
};

struct Prepared {
    cv::Mat image;  // 8-bit RGB
    Placement placement;
    double share = 1;  // of the field of view's longer side that the square shows

    double field() const { return image.rows / share; }  // that longer side, in the square's pixels
};

// A JPEG, or a PNG of 8-bit RGB. Each is decoded when it is asked for, a JPEG at a fraction of its size where that will
// do.
class Photo {
public:
    explicit Photo(Bytes data);

    // How often the picture can be halved, as a factor, so that its shorter side still has so many px: 8, 4, 2 or 1.
    int factor_for(int side) const;
    // The picture so much smaller, 8-bit BGR as displayed.
    const cv::Mat& reduced(int factor);

    // The same without a border, and the box around what is lit. Throws Refused.
    struct Seen {
        cv::Mat pixels;
        cv::Rect box;
    };
    const Seen& seen(int factor, int fov_threshold);

    int width, height;  // as displayed, px; of a JPEG that EXIF turns, known after the first decoding

private:
    cv::Mat decoded(int factor);

    Bytes data_;
    bool is_jpeg_;
    std::map<int, cv::Mat> reduced_;
    std::map<std::pair<int, int>, Seen> seen_;
};

Bytes read_file(const std::string& path);  // throws Refused
Prepared prepare(Photo& photo, const Geometry& geometry);
// The whole field of view in the middle of a square, reduced by a whole number alone.
Prepared finer(Photo& photo, const Geometry& geometry);
// The middle of that, a share of the field of view's longer side, as a square of so many px.
Prepared middle(const Prepared& finer, double share, int size);
// Where a later look is to look closer, in the pixels of that: a disc.
struct Spot {
    cv::Point2d at;
    double diameter_px;
};
Prepared around(const Prepared& finer, const Spot& spot, const Geometry& geometry);
// A map of another square on this one, bilinear; what lies outside is 0.
cv::Mat on_square(const cv::Mat& map, const Placement& of, const Prepared& square);
cv::Mat brightest(const cv::Mat& pixels);
void expect_colours(const cv::Mat& image);  // throws Refused where no retina has such colours
bool expect_round(const cv::Mat& image);    // throws Refused for a squeezed picture; false where it is not quite round
